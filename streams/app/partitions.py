"""The partitions a worker owns: recovered when assigned, checkpointed, given up when revoked.

After every assignment the in-memory state is dropped and read again from what the changelog proves
(engine.md, rule 6c); a store that was kept only needs the changelog's new part.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from routekeel.streams.app.checkpoint_account import CheckpointAccount
from routekeel.streams.app.metrics import WorkerMetrics
from routekeel.streams.app.recovery_progress import RecoveryProgress
from routekeel.streams.app.standby import Followed, Standbys
from routekeel.streams.errors import ServiceUnavailable
from routekeel.streams.topology.changelog import ChangelogRecord, StateStore
from routekeel.streams.topology.changelog_reader import ChangelogReader
from routekeel.streams.topology.partition import PartitionProcessor
from routekeel.streams.topology.records import Source

log = logging.getLogger(__name__)


@dataclass(slots=True)
class OwnedPartition:
    """A recovered partition. `owned` turns false when it is revoked: work on it then stops."""

    processor: PartitionProcessor
    account: CheckpointAccount
    owned: bool = True
    durable_offset: int = -1


class StateLog(Protocol):
    """The changelog of every partition, as the partitions see it."""

    async def recover(self, partition: int, reader: ChangelogReader, progress: Progress) -> None:
        """Read on to the changelog's present end; `progress` gets (records read, to read in all)."""
        ...

    async def follow(
        self, readers: Mapping[int, ChangelogReader], stop: threading.Event, followed: Followed
    ) -> None:
        """Feed the readers with what is written, until `stop` is set (app/standby.py)."""
        ...

    async def review(self, partition: int, reader: ChangelogReader, end: int) -> None:
        """Read what lies below `end` without adopting it: another process wrote between our records."""
        ...

    async def write(self, partition: int, records: Sequence[ChangelogRecord]) -> tuple[int, int]:
        """Write a checkpoint durably: (offset of its last record, bytes)."""
        ...

    def close(self) -> None:
        """Wait no longer for anything."""


Progress = Callable[[int, int], None]
StoreFactory = Callable[[int], StateStore]
ProcessorFactory = Callable[[Source, StateStore], PartitionProcessor]


class Partitions:
    """The assigned partitions of the logits topic, each being recovered or ready."""

    def __init__(
        self,
        topic: str,
        state_log: StateLog,
        new_store: StoreFactory,
        new_processor: ProcessorFactory,
        metrics: WorkerMetrics,
        progress: RecoveryProgress | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._topic = topic
        self._state_log = state_log
        self._new_store = new_store
        self._new_processor = new_processor
        self._metrics = metrics
        self._clock = clock
        self._progress = progress or RecoveryProgress(metrics)
        self._readers: dict[int, ChangelogReader] = {}
        self._standbys = Standbys(state_log.follow, metrics)
        self._owned: dict[int, asyncio.Task[OwnedPartition]] = {}
        self.topic_id = ""
        self.progress_at = clock()
        """When a recovery last got on, by the clock; a long one is no standstill."""

    @property
    def assigned(self) -> set[int]:
        """The partitions of the present assignment."""
        return set(self._owned)

    async def assign(
        self, partitions: set[int], topic_id: str, standby: Collection[int] = ()
    ) -> None:
        """Take over `partitions`, stand by for `standby`, and drop what is kept of others."""
        self.topic_id = topic_id
        await self._standbys.stop()
        followed = set(standby) - partitions
        for partition in set(self._readers) - partitions - followed:
            self._readers.pop(partition).store.close()
        for partition in partitions:
            self._owned[partition] = asyncio.ensure_future(self._recover(partition))
        self._standbys.start({partition: self._reader(partition) for partition in followed})

    async def revoke(self, partitions: set[int]) -> None:
        """Give partitions up: work on them stops, their stores stay until the next assignment."""
        await self._standbys.stop()
        for partition in partitions & set(self._owned):
            task = self._owned.pop(partition)
            if task.done() and not task.cancelled() and task.exception() is None:
                task.result().owned = False
            elif not task.done():
                # The store is in use by the recovery's thread until it ends.
                owned = await asyncio.wait_for(asyncio.shield(task), None)
                owned.owned = False

    async def get(self, partition: int) -> OwnedPartition | None:
        """The partition once it is recovered; None when it is not (or no longer) ours."""
        task = self._owned.get(partition)
        if task is None:
            return None
        owned = await asyncio.shield(task)
        return owned if owned.owned else None

    def ready(self) -> dict[int, OwnedPartition]:
        """The recovered partitions."""
        done = {p: task for p, task in self._owned.items() if task.done() and not task.cancelled()}
        found = {p: task.result() for p, task in done.items() if task.exception() is None}
        return {p: owned for p, owned in found.items() if owned.owned}

    def failure(self) -> BaseException | None:
        """Why a recovery failed, if one did."""
        for task in self._owned.values():
            if task.done() and not task.cancelled() and task.exception() is not None:
                return task.exception()
        return None

    def committable(self, partition: int) -> int | None:
        """The offset the group may commit: everything below it is durable."""
        owned = self.ready().get(partition)
        return None if owned is None or owned.durable_offset < 0 else owned.durable_offset + 1

    async def checkpoint(self, owned: OwnedPartition) -> None:
        """Write what changed; the outputs that belong to it must be durable already."""
        processor = owned.processor
        if not processor.is_dirty:
            return
        started = self._clock()
        applied = processor.watermark.applied_offset
        records = processor.checkpoint()
        tombstones = records.tombstones
        partition = processor.source.partition
        reader = self._readers[partition]
        foreign = reader.foreign_writes
        last_offset, size = await self._state_log.write(partition, records)
        try:
            processor.checkpointed(reader.wrote(records, last_offset, processor.watermark))
        except BaseException:
            # The log has it and this store has not: who takes over here must read it.
            reader.restart()
            raise
        owned.durable_offset = applied
        if reader.foreign_writes > foreign:
            self._metrics.foreign_writes.inc()
            log.warning(
                "another process wrote to the state log of partition %d, too: one that was stopped and woke "
                "up, or another group with the same worker.app_id", partition,
            )  # fmt: skip
            try:
                await self._state_log.review(partition, reader, last_offset + 1)
            except ServiceUnavailable as error:
                # Nothing is wrong with this state: the next checkpoint meets the other's records again.
                log.warning("%s; it is tried again after the next checkpoint", error)
            self._write_again(processor, reader)
        self._metrics.checkpoints.inc()
        self._metrics.tombstones.inc(tombstones)
        self._metrics.changelog_bytes.inc(size)
        self._metrics.checkpoint_s.observe(self._clock() - started)

    async def _recover(self, partition: int) -> OwnedPartition:
        started = self._clock()
        reader = self._reader(partition)
        before = reader.records

        def progress(read: int, total: int) -> None:
            self.progress_at = self._clock()
            self._progress.update(partition, read, total)

        try:
            await self._state_log.recover(partition, reader, progress)
        finally:
            self._progress.finished(partition)
        source = Source(self._topic, self.topic_id, partition)
        processor = self._new_processor(source, reader.store)
        self._write_again(processor, reader)
        self.progress_at = self._clock()
        records = reader.records - before
        elapsed = self._clock() - started
        self._metrics.recoveries.inc()
        self._metrics.recovery_s.observe(elapsed)
        log.info(
            "partition %d recovered in %.2f s: %d sessions, %d changelog records, applied to offset %d",
            partition, elapsed, processor.sessions, records, processor.watermark.applied_offset,
        )  # fmt: skip
        if reader.torn:
            log.info("left out %d records of a checkpoint that was never finished", reader.torn)
        if processor.recreated:
            self._metrics.recreated_topics.inc()
            log.warning(
                "topic %s was recreated (id %s now): partition %d starts at the new log's beginning",
                source.topic, source.topic_id, partition,
            )  # fmt: skip
        durable = -1 if processor.recreated else processor.watermark.applied_offset
        owned = OwnedPartition(processor, CheckpointAccount(self._clock()), durable_offset=durable)
        if processor.recreated:
            await self._begin_log(owned)
        return owned

    async def _begin_log(self, owned: OwnedPartition) -> None:
        """Write with which state a new log begins, before anything of it is applied.

        A process that was stopped further on in the old log may wake and write: from then on that is old,
        and what it wrote just before is written over. Else it would count for who comes next, and not here.
        """
        while owned.processor.is_dirty:
            await self.checkpoint(owned)

    def _write_again(self, processor: PartitionProcessor, reader: ChangelogReader) -> None:
        """Have the next checkpoint hold what a late writer's records lie over, before compaction."""
        late = reader.late
        self._metrics.written_again.inc(len(late))
        processor.rewrite(late)

    def _reader(self, partition: int) -> ChangelogReader:
        reader = self._readers.get(partition)
        if reader is None:
            reader = self._readers[partition] = ChangelogReader(self._new_store(partition))
        return reader

    async def close(self) -> None:
        """Release the stores; what is still being written is given up."""
        self._state_log.close()
        await self._standbys.stop()
        for reader in self._readers.values():
            reader.store.close()
        self._readers.clear()
