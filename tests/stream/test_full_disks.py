"""Stores that take no commit for a while: nothing is missing in them afterwards."""

from __future__ import annotations

import pytest

from routekeel.streams.app import standby as standby_module
from tests.stream.shared_log import Worker, assert_exact, world


@pytest.mark.parametrize("room", range(4))
async def test_a_copy_on_a_full_disk_lacks_nothing_once_there_is_room(
    room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read and not stored is read again: the next watermark must not cover a hole."""
    monkeypatch.setattr(standby_module, "RETRY_S", 0.01)
    log, driver = world()
    owner, standby = Worker(log, driver), Worker(log, driver)
    await owner.take_over()
    await standby.stand_by()
    standby.disk.room = room
    await owner.work(20)
    async with log.followed:
        await log.followed.wait_for(lambda: standby.disk.refused >= 7)  # checkpoints
    standby.disk.room = 10**9
    await owner.work(21)  # touches one session: the others' changes must have come before
    async with log.followed:
        await log.followed.wait_for(
            lambda: standby.disk.watermark == owner.disk.watermark is not None
        )
    assert dict(standby.disk.items()) == dict(owner.disk.items())
    await standby.take_over()
    await standby.work(60)
    assert_exact(standby)


async def test_a_checkpoint_that_the_full_disk_refused_is_read_again() -> None:
    """The log has it, and the partition comes back to the same process."""
    log, driver = world()
    worker = Worker(log, driver)
    await worker.take_over()
    await worker.work(20)
    worker.disk.room = 0
    with pytest.raises(OSError, match="full"):
        await worker.work(23)
    worker.disk.room = 10**9
    await worker.take_over()
    owned = await worker.partitions.get(0)
    assert owned is not None
    assert owned.processor.watermark.applied_offset == 22
    await worker.work(60)
    assert_exact(worker)
