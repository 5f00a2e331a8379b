"""Partitions change hands between workers that share one state log: standbys, kept stores, late writers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence

import pytest

from routekeel.streams.app import standby as standby_module
from routekeel.streams.app.metrics import WorkerMetrics
from routekeel.streams.app.partitions import Partitions
from routekeel.streams.driver import TopologyDriver
from routekeel.streams.errors import ServiceUnavailable
from routekeel.streams.topology.changelog import ChangelogRecord, MemoryStore, StateStore
from routekeel.streams.topology.changelog_reader import ChangelogReader
from routekeel.streams.topology.config import TopologyConfig
from routekeel.streams.topology.outputs import OutputBuilder
from routekeel.streams.topology.partition import PartitionProcessor
from routekeel.streams.topology.records import Source
from routekeel.streams.topology.watermark import Watermark
from tests.stream.chunks import chunk_fields


class SharedLog:
    """The changelog of partition 0, the same for every worker.

    `broken` makes following fail, `silent` reading what another process wrote between; `first` is what
    another process writes just before the next checkpoint.
    """

    def __init__(self) -> None:
        self.records: list[ChangelogRecord] = []
        self.first: list[ChangelogRecord] = []
        self.broken = self.silent = False
        self.followed = asyncio.Condition()

    async def recover(
        self, partition: int, reader: ChangelogReader, progress: Callable[[int, int], None]
    ) -> None:
        start = reader.next_offset
        for offset in range(start, len(self.records)):
            reader.feed(offset, *self.records[offset])
        progress(len(self.records) - start, len(self.records) - start)

    async def review(self, partition: int, reader: ChangelogReader, end: int) -> None:
        if self.silent:
            raise ServiceUnavailable("the broker does not answer", "wait for it")
        for offset in range(reader.next_offset, end):
            reader.review(offset, *self.records[offset])

    async def follow(
        self,
        readers: Mapping[int, ChangelogReader],
        stop: threading.Event,
        followed: Callable[[int, int], None],
    ) -> None:
        while not stop.is_set():
            if self.broken:
                async with self.followed:
                    self.followed.notify_all()
                raise OSError("the disk is full")
            try:
                for reader in readers.values():
                    before = reader.records
                    await self.recover(0, reader, lambda *_: None)
                    followed(reader.records - before, 0)
            finally:
                async with self.followed:
                    self.followed.notify_all()
            await asyncio.sleep(0)

    async def write(self, partition: int, records: Sequence[ChangelogRecord]) -> tuple[int, int]:
        self.records += [*self.first, *records]
        self.first = []
        return len(self.records) - 1, 0


class FullDisk(MemoryStore):
    """A store that takes so many commits and then none, until there is room again."""

    def __init__(self) -> None:
        super().__init__()
        self.room = 10**9
        self.refused = 0

    def commit(
        self, changes: Mapping[bytes, bytes | None], watermark: Watermark, position: int
    ) -> None:
        if self.room <= 0:
            self.refused += 1
            raise OSError("the disk is full")
        self.room -= 1
        super().commit(changes, watermark, position)


class Worker:
    """One worker's partitions over the shared log, kept on a disk that can be full."""

    def __init__(self, log: SharedLog, driver: TopologyDriver) -> None:
        def new_processor(source: Source, store: StateStore) -> PartitionProcessor:
            builder = OutputBuilder(driver.config, driver._telemetry.encode, driver._weights.encode)
            return PartitionProcessor(source, driver.config, driver._decode, builder, store)

        self.log, self.driver, self.metrics = log, driver, WorkerMetrics()
        self.disk = FullDisk()
        self.partitions = Partitions(
            "routekeel.logits", log, lambda _: self.disk, new_processor, self.metrics
        )

    async def take_over(self, topic_id: str = "log-1") -> None:
        await self.partitions.revoke({0})
        await self.partitions.assign({0}, topic_id)
        assert await self.partitions.get(0) is not None

    async def stand_by(self) -> None:
        await self.partitions.revoke({0})
        await self.partitions.assign(set(), "log-1", {0})
        await self.has_followed()

    async def has_followed(self) -> None:
        for _ in range(2):  # the first may have begun before what was written last
            async with self.log.followed:
                await self.log.followed.wait()

    async def work(self, until: int, step: int = 3) -> None:
        """Apply the log up to `until`, with a checkpoint every few records."""
        owned = await self.partitions.get(0)
        assert owned is not None
        while (start := owned.processor.watermark.applied_offset + 1) < until:
            owned.processor.apply(self.driver.log[start : min(until, start + step)])
            await self.partitions.checkpoint(owned)

    def count(self, name: str) -> float:
        return self.metrics.registry.get_sample_value(f"routekeel_{name}") or 0.0


def world(chunks: int = 60) -> tuple[SharedLog, TopologyDriver]:
    """A log of chunks of ten sessions, of which only four may live at a time."""
    driver = TopologyDriver(TopologyConfig(kernel="numpy", sessions_max=4))
    for index in range(chunks):
        driver.append(chunk_fields(f"s{index * index % 10}", 3 * index))
    return SharedLog(), driver


def assert_exact(worker: Worker) -> None:
    """The state is that of a run without any change of hands."""
    worker.driver.run()
    owned = worker.partitions.ready()[0]
    assert owned.processor.watermark == worker.driver.processor.watermark
    store = worker.partitions._readers[0].store
    assert dict(store.items()) == worker.driver.states()
    assert list(owned.processor._roster._recency) == list(worker.driver.processor._roster._recency)


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
