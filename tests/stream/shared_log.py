"""Workers that share one state log, for tests in which partitions change hands."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence

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
    assert list(owned.processor._roster.table.order) == list(
        worker.driver.processor._roster.table.order
    )
