"""The stream worker: batches from Faust, applied, their outputs sent, checkpoints written.

Order of durability, which exactness rests on: outputs and dead letters first, then the changelog's
checkpoint, then the group's commit. Any failure ends the process; what was not checkpointed is read
and emitted again, with the same ids.
"""

from __future__ import annotations

import asyncio
import logging
import time
from bisect import bisect_right
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

import faust
from aiokafka.errors import IllegalStateError
from faust.types import TP

from routekeel.schemas.codec import Encoder
from routekeel.streams.app.decoding import LogitsDecoder
from routekeel.streams.app.gap_watch import FirstRecord, GapWatch
from routekeel.streams.app.metrics import WorkerMetrics
from routekeel.streams.app.moment import Moment
from routekeel.streams.app.partitions import OwnedPartition, Partitions
from routekeel.streams.app.sender import Output, Sender
from routekeel.streams.errors import ConfigurationError, ServiceUnavailable
from routekeel.streams.settings import Settings
from routekeel.streams.topology.records import LogBatch

log = logging.getLogger(__name__)


class StreamWorker:
    """Connects the Faust app with the partitions. `failed` is set once, with the reason."""

    def __init__(
        self,
        settings: Settings,
        app: faust.App,
        partitions: Partitions,
        decoder: LogitsDecoder,
        output: Output,
        encode_dead_letter: Encoder,
        metrics: WorkerMetrics,
        current_topic_id: Callable[[], Awaitable[str]],
        first_record: FirstRecord,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.app = app
        self.partitions = partitions
        self.metrics = metrics
        self._decoder = decoder
        self.output = output
        self._sender = Sender(settings, output, encode_dead_letter, metrics)
        self._current_topic_id = current_topic_id
        self._clock = clock
        self._busy = asyncio.Lock()
        self._starting: list[asyncio.Future[None]] = []
        self._gaps = GapWatch(first_record)
        self._waiting: set[int] = set()
        self.failed: asyncio.Future[BaseException] = asyncio.get_event_loop().create_future()
        self.progress_at = clock()
        self.records_applied = 0
        self.first_batch: Moment | None = None
        self._attach()

    def _attach(self) -> None:
        topic = self.app.topic(
            self.settings.topics.logits, key_type=None, value_type=None, value_serializer="raw"
        )

        async def consume(stream: AsyncIterator[Any]) -> None:
            async for event in stream.events():  # type: ignore[attr-defined]
                try:
                    await self._on_batch(event.message.tp, event.message.value)
                except asyncio.CancelledError:
                    raise
                except BaseException as error:
                    self.fail(error)
                    # The worker ends because of that, and tells it, and takes no more batches: raised
                    # here, Faust would tell a full disk a second time, with a traceback.
                    await asyncio.Event().wait()

        self.app.agent(topic, name="routekeel.logits", concurrency=1)(consume)
        self.app.on_partitions_assigned.connect(self._assigned)
        self.app.on_partitions_revoked.connect(self._revoked)

    def fail(self, error: BaseException) -> None:
        """End the worker because of this error (the first one counts)."""
        if not self.failed.done():
            self.failed.set_result(error)

    async def _assigned(self, app: Any, assigned: set[TP], **_: Any) -> None:
        mine = {tp.partition for tp in assigned if tp.topic == self.settings.topics.logits}
        topic_id = await self._look()
        if topic_id is None:
            await self.partitions.assign(set(), self.partitions.topic_id)
            self._wait_for_topic(mine)
            return
        self._waiting = set()
        await self.partitions.assign(mine, topic_id, self._standby())
        self._start_all(mine)

    def _standby(self) -> set[int]:
        """The partitions whose state this worker keeps a copy of, by the group's assignment."""
        if not self.settings.worker.standby_replicas:
            return set()
        tps: set[TP] = self.app.assignor.assigned_standbys()
        return {tp.partition for tp in tps if tp.topic == self.settings.topics.logits}

    def _start_all(self, partitions: set[int]) -> None:
        self._starting = [
            asyncio.ensure_future(self._start_at_watermark(partition)) for partition in partitions
        ]

    async def _revoked(self, app: Any, revoked: set[TP], **_: Any) -> None:
        mine = {tp.partition for tp in revoked if tp.topic == self.settings.topics.logits}
        # In one go: a checkpoint between the two would write into the store that the next
        # assignment reads from.
        async with self._busy:
            try:
                await self._checkpoint_all(only=mine)
            except Exception as error:
                log.warning(
                    "no last checkpoint before giving partitions up (%s); the next owner repeats a little",
                    error,
                )
            await self.partitions.revoke(mine)
            self._waiting -= mine

    async def _start_at_watermark(self, partition: int) -> None:
        """The position is the watermark's, whatever the group committed."""
        try:
            owned = await self.partitions.get(partition)
            if owned is None:
                return
            tp = TP(self.settings.topics.logits, partition)
            with suppress(IllegalStateError):  # given up meanwhile
                at = await self.app.consumer.position(tp)
                if at is not None and at != owned.processor.watermark.applied_offset + 1:
                    await self._seek(tp, owned)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self.fail(error)

    async def _on_batch(self, tp: TP, records: Sequence[Any]) -> None:
        owned = await self.partitions.get(tp.partition)
        if owned is None:
            return
        applied = owned.processor.watermark.applied_offset
        first, last = records[0].offset, records[-1].offset
        if first != applied + 1 and not await self._contiguous(tp, owned, first, last):
            return
        batch = LogBatch(
            [r.offset for r in records],
            [r.timestamp for r in records],
            [r.key for r in records],
            [r.value for r in records],
            [r.headers for r in records],
        )
        size = sum(len(value) for value in batch.values if value)
        self.metrics.input_bytes.inc(size)
        await self._decoder.resolve(batch.values)
        async with self._busy:
            if not owned.owned:
                return
            applied = owned.processor.watermark.applied_offset
            self.metrics.holes.inc(
                last - applied - len(batch) + bisect_right(batch.offsets, applied)
            )
            self.first_batch = self.first_batch or Moment.now()
            self.metrics.batch_records.observe(len(batch))
            try:
                pieces = owned.processor.pieces(batch)
                self.records_applied += await self._sender.send_all(owned.processor.source, pieces)
            except BaseException:
                owned.owned = False  # a checkpoint of it now would be of half a batch
                raise
            self.progress_at = self._clock()
            owned.account.applied(size, self.progress_at)
            await self._checkpoint_due()

    async def _look(self) -> str | None:
        """Kafka's id of the topic, None where nobody can say: it was deleted, or the broker is away."""
        with suppress(ServiceUnavailable, ConfigurationError):
            return await self._current_topic_id()
        return None

    async def check_topic(self) -> None:
        """See whether the topic was recreated: a batch tells only where its offsets do not fit."""
        topic_id = await self._look()
        if topic_id is None:  # asked again soon
            return
        if self._waiting or (self.partitions.assigned and topic_id != self.partitions.topic_id):
            await self._start_over(topic_id)

    async def _start_over(self, topic_id: str) -> None:
        if self.partitions.topic_id not in ("", topic_id):
            log.warning("the logits topic was recreated while it was being read")
        async with self._busy:
            mine = self.partitions.assigned | self._waiting
            self._waiting = set()
            await self.partitions.revoke(self.partitions.assigned)
            await self.partitions.assign(mine, topic_id, self._standby())
        self._start_all(mine)

    def _wait_for_topic(self, partitions: set[int]) -> None:
        """Begin with these partitions when `check_topic` finds the topic: a rebalance comes while the
        topic is gone, and taken for another log's, an id that nobody knows would begin the state anew.
        """
        log.warning(
            "topic %s is not there (or the broker is not): waiting for it",
            self.settings.topics.logits,
        )
        self._waiting = partitions

    async def _contiguous(self, tp: TP, owned: OwnedPartition, first: int, last: int) -> bool:
        """Whether the batch can be applied as it is; seeks to the right place where it cannot."""
        applied = owned.processor.watermark.applied_offset
        topic_id = await self._look()
        if topic_id is None:
            async with self._busy:
                mine = self.partitions.assigned
                await self.partitions.revoke(mine)
                self._wait_for_topic(mine)
            return False
        if topic_id != owned.processor.source.topic_id:  # offsets of another log
            await self._start_over(topic_id)
            return False
        if first <= applied:
            return last > applied
        earliest = await self.app.consumer.earliest_offsets(tp)
        log_start = earliest[tp]
        if log_start is not None and log_start > applied + 1:
            # Not within a checkpoint: the store would move on to a watermark that was not written.
            async with self._busy:
                if not owned.owned:
                    return False
                lost = owned.processor.lost_until(log_start)
            self.metrics.lost_to_retention.inc(lost)
            log.error(
                "%d records of %s[%d] were removed by retention before they were read", lost, *tp
            )
            applied = owned.processor.watermark.applied_offset
            if first == applied + 1:
                return True
        if await self._gaps.is_hole(tp.partition, applied, first):
            log.warning("%s[%d] has no record between the offsets %d and %d", *tp, applied, first)
            return True
        self.metrics.gaps_healed.inc()
        log.info(
            "%s[%d]: after %d came %d; the records between are read again", *tp, applied, first
        )
        await self._seek(tp, owned)
        return False

    async def _seek(self, tp: TP, owned: OwnedPartition) -> None:
        # In a rebalance it may have been given up meanwhile: who gets it begins at the watermark.
        with suppress(IllegalStateError):
            await self.app.consumer.seek(tp, owned.processor.watermark.applied_offset + 1)

    async def checkpoint_if_due(self) -> None:
        """Checkpoint what the policy says is due by now."""
        async with self._busy:
            await self._checkpoint_due()

    async def _checkpoint_due(self) -> None:
        policy, now = self.settings.worker, self._clock()
        due = {
            partition
            for partition, owned in self.partitions.ready().items()
            if owned.processor.is_dirty
            and owned.account.is_due(policy, owned.processor.dirty_bytes, now)
        }
        if due:
            await self._checkpoint_all(due)

    async def checkpoint_now(self) -> None:
        """Checkpoint everything, e.g. before the end."""
        async with self._busy:
            await self._checkpoint_all()

    async def _checkpoint_all(self, only: set[int] | None = None) -> None:
        ready = self.partitions.ready()
        dirty = [
            o for p, o in ready.items() if o.processor.is_dirty and (only is None or p in only)
        ]
        if dirty:
            await self.output.durable()
            for owned in dirty:
                await self.partitions.checkpoint(owned)
                owned.account.checkpointed(self._clock())
