"""Partitions change hands between workers that share one state log: standbys, kept stores, late writers."""

from __future__ import annotations

import pytest

from routekeel.streams.app import standby as standby_module
from tests.stream.shared_log import Worker, assert_exact, world


async def test_a_standby_reads_only_the_tail() -> None:
    log, driver = world()
    owner, standby = Worker(log, driver), Worker(log, driver)
    await owner.take_over()
    await owner.work(20)
    await standby.stand_by()
    await owner.work(40)
    await standby.has_followed()
    assert standby.count("worker_standby_records_total") == len(log.records)
    tail = len(log.records)
    standby.partitions._standbys._stop.set()  # what comes now is not followed any more
    await owner.work(46)
    await standby.take_over()
    assert standby.count("recovery_records_read_total") == len(log.records) - tail > 0
    await standby.work(60)
    assert_exact(standby)


async def test_hands_may_change_again_and_again() -> None:
    log, driver = world()
    first, second = Worker(log, driver), Worker(log, driver)
    for until in range(10, 60, 10):
        await second.stand_by()
        await first.take_over()
        await first.work(until, step=4)
        await second.has_followed()
        first, second = second, first
    await first.take_over()
    await first.work(60)
    assert_exact(first)


async def test_a_copy_of_a_torn_checkpoint_is_not_applied() -> None:
    log, driver = world()
    owner, standby = Worker(log, driver), Worker(log, driver)
    await standby.stand_by()
    await owner.take_over()
    await owner.work(20)
    owned = await owner.partitions.get(0)
    assert owned is not None
    owned.processor.apply(driver.log[20:26])
    log.records += owned.processor.checkpoint()[:-1]  # and then it was killed
    await standby.has_followed()
    await standby.take_over()
    taken = await standby.partitions.get(0)
    assert taken is not None
    assert taken.processor.watermark.applied_offset == 19
    await standby.work(60)
    assert_exact(standby)


async def test_a_worker_that_got_its_partition_back_reads_nothing_again() -> None:
    log, driver = world()
    worker = Worker(log, driver)
    await worker.take_over()
    await worker.work(30)
    await worker.take_over()
    assert worker.count("recovery_records_read_total") == 0
    await worker.work(60)
    assert_exact(worker)


async def test_an_owner_that_was_given_up_and_writes_on_harms_nobody() -> None:
    log, driver = world()
    stopped, successor = Worker(log, driver), Worker(log, driver)
    await stopped.take_over()
    await stopped.work(20)
    await successor.take_over()
    await successor.work(35)
    await stopped.work(26)  # it wakes up and does not know yet
    await successor.work(41)
    assert stopped.count("worker_foreign_checkpoints_total") == 1, "what it read counts once"
    assert successor.count("worker_foreign_checkpoints_total") > 0
    await stopped.take_over()
    await stopped.work(60)
    assert_exact(stopped)


async def test_what_another_wrote_is_read_later_when_the_broker_does_not_answer() -> None:
    log, driver = world()
    stopped, owner = Worker(log, driver), Worker(log, driver)
    await stopped.take_over()
    await stopped.work(20)
    await owner.take_over()
    await owner.work(35)
    await stopped.work(26)
    log.silent = True
    await owner.work(36)
    again = "worker_changelog_keys_written_again_total"
    assert (owner.count("worker_foreign_checkpoints_total"), owner.count(again)) == (1, 0)
    log.silent = False
    await owner.work(37)
    assert owner.count("worker_foreign_checkpoints_total") == 2
    assert owner.count(again) > 0
    await owner.work(60)
    assert_exact(owner)


async def test_a_copy_that_cannot_be_kept_ends_nothing_and_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(standby_module, "RETRY_S", 0.01)
    log, driver = world()
    owner, standby = Worker(log, driver), Worker(log, driver)
    await owner.take_over()
    await owner.work(20)
    await standby.stand_by()
    log.broken = True
    async with log.followed:
        await log.followed.wait_for(lambda: standby.count("worker_standby_failures_total") > 1)
    await owner.work(40)
    log.broken = False
    await standby.has_followed()
    assert standby.count("worker_standby_records_total") == len(log.records)
    log.broken = True
    await standby.take_over()
    await standby.work(60)
    assert_exact(standby)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_new_log_begins_with_one_state_whatever_a_stopped_process_writes(when: str) -> None:
    """The stopped one was further in the log that is gone: its state is right, and not the owner's."""
    log, driver = world()
    stopped, owner = Worker(log, driver), Worker(log, driver)
    await stopped.take_over()
    await stopped.work(20)
    ahead = (await stopped.partitions.get(0)).processor  # type: ignore[union-attr]
    ahead.apply(driver.log[20:40])
    if when == "before":
        log.first = ahead.checkpoint()
        await owner.take_over("log-2")
        assert owner.count("worker_foreign_checkpoints_total") == 1
    else:
        await owner.take_over("log-2")
        log.records += ahead.checkpoint()
    begins = owner.partitions._readers[0].store
    heir = Worker(log, driver)
    await heir.take_over("log-2")
    found = heir.partitions._readers[0].store
    assert found.watermark == begins.watermark
    assert found.watermark is not None and found.watermark[:3] == ("log-2", 1, -1)
    assert dict(found.items()) == dict(begins.items()) != {}
