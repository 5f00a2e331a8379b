"""Sends blocks of records in order, as finished record batches, from a thread of its own.

The thread has an event loop with aiokafka's idempotent producer in it: leaders, retries and sequence
numbers are aiokafka's, the batches are ours (record_batch.py). Framing and compressing release the GIL, so
they run beside the worker's own computing where there is a core for both. Every partition is a lane:
while one batch is under way the next one is made, and what comes meanwhile is put together.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from aiokafka import errors as aiokafka_errors
from confluent_kafka import KafkaError, KafkaException

from routekeel.streams.app.kafka_producer import FinishedBatch, make_producer, producer_options
from routekeel.streams.app.record_batch import Framer, RecordBatch
from routekeel.streams.settings import KafkaSettings
from routekeel.streams.topology.record_block import RecordBlock

log = logging.getLogger(__name__)

BATCH_BYTES = 1_000_000
"""Of a batch before compression, unless one record is larger."""
REQUEST_BYTES = 64 * 2**20
"""Of all batches under way, unless one alone is larger: aiokafka puts those of all partitions into one
request, which a broker takes up to 100 MiB of.
"""
RETRY_S = 0.5
STOP_S = 1.0


@dataclass(slots=True, eq=False)
class Job:
    """A block on its way; records before `next` are in batches already."""

    framer: Framer
    done: Future[int]
    next: int = 0

    def bytes_to(self, end: int) -> int:
        """What the records from `next` up to `end` may take."""
        ends = self.framer.ends
        return int(ends[end - 1] - (ends[self.next - 1] if self.next else 0))


@dataclass(slots=True, eq=False)
class Lane:
    """One partition's blocks, in order; they go when `due` is set."""

    topic: str
    partition: int
    jobs: deque[Job] = field(default_factory=deque)
    bytes_waiting: int = 0
    due: asyncio.Event = field(default_factory=asyncio.Event)
    timer: asyncio.TimerHandle | None = None
    before: asyncio.Future[Any] | None = None
    """The answer to the batch that went last."""


class BatchSender:
    """Safe to use from any thread. A broker that is away is waited for, without end. After a failure
    nothing more is sent: what comes later must not arrive where something before it did not.
    """

    def __init__(self, kafka: KafkaSettings, name: str, linger_s: float = 0.0) -> None:
        self._options = producer_options(kafka)
        self._linger_s = linger_s
        self._lanes: dict[tuple[str, int], Lane] = {}
        self._open: set[Job] = set()
        self._failure: KafkaException | None = None
        self._under_way = 0
        self._freed = asyncio.Event()
        self._scratch = np.empty(0, np.uint8)
        self._loop = asyncio.new_event_loop()
        self._closing = asyncio.Event()
        self._producer: asyncio.Future[Any] = self._loop.create_future()
        self._tasks: list[asyncio.Task[None]] = []
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def send(self, topic: str, partition: int, block: RecordBlock) -> Future[int]:
        """Hand a block over, without waiting; the result is the offset of its last record.

        The future cannot be cancelled, and fails with KafkaException, which is raised here once something
        has failed. Raises ValueError for a block without records.
        """
        if not len(block):
            raise ValueError("a block without records has no last offset")
        job = Job(Framer(block), Future())
        job.done.set_running_or_notify_cancel()
        try:
            if self._failure is not None:
                raise self._failure
            self._loop.call_soon_threadsafe(self._enqueue, topic, partition, job)
        except RuntimeError as closed:
            raise _CLOSED from closed
        return job.done

    def hurry(self) -> None:
        """Let nothing linger that was handed over."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._hurry)

    def close(self) -> None:
        """End the thread; what is still on its way is given up, and fails."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(2 * STOP_S)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._work())
        finally:
            self._loop.close()

    async def _work(self) -> None:
        connecting = asyncio.create_task(self._connect())
        await self._closing.wait()
        self._fail(_CLOSED)
        connecting.cancel()
        if self._producer.done():
            producer = self._producer.result()
            producer._message_accumulator.fail_all(aiokafka_errors.ProducerClosed())
            with suppress(Exception):
                await asyncio.wait_for(producer.stop(), STOP_S)
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    async def _connect(self) -> None:
        while True:
            try:
                producer = make_producer(self._options)
            except Exception as error:
                self._fail(error)
                return
            try:
                await producer.start()
            except Exception as error:
                await producer.stop()
                if not getattr(error, "retriable", False):
                    self._fail(error)
                    return
                log.warning("cannot connect to Kafka: %s", error)
                await asyncio.sleep(RETRY_S)
            else:
                self._producer.set_result(producer)
                return

    def _enqueue(self, topic: str, partition: int, job: Job) -> None:
        if self._failure is not None:
            job.done.set_exception(self._failure)
            return
        lane = self._lanes.get((topic, partition))
        if lane is None:
            lane = self._lanes[topic, partition] = Lane(topic, partition)
            self._tasks.append(asyncio.create_task(self._run_lane(lane)))
        self._open.add(job)
        lane.jobs.append(job)
        lane.bytes_waiting += job.bytes_to(len(job.framer))
        if not self._linger_s or lane.bytes_waiting >= BATCH_BYTES:
            lane.due.set()
        elif lane.timer is None:
            lane.timer = self._loop.call_later(self._linger_s, lane.due.set)

    def _hurry(self) -> None:
        for lane in self._lanes.values():
            lane.due.set()

    async def _run_lane(self, lane: Lane) -> None:
        producer = await asyncio.shield(self._producer)
        # Or its metadata would be thrown away with the next answer about others.
        producer.client.add_topic(lane.topic)
        try:
            while True:
                await lane.due.wait()
                lane.due.clear()
                if lane.timer is not None:
                    lane.timer.cancel()
                    lane.timer = None
                while lane.jobs and self._failure is None:
                    batch, ended = self._next_batch(lane)
                    # Behind a batch that the broker refuses nothing may be: it would arrive.
                    if lane.before is not None:
                        await asyncio.wait([lane.before])
                    if self._failure is None:
                        lane.before = await self._hand_over(producer, lane, batch, ended)
        except Exception as error:
            self._fail(error)

    def _next_batch(self, lane: Lane) -> tuple[RecordBatch, list[tuple[Job, int]]]:
        """What goes next, and which jobs end with it, each with the place of its last record."""
        parts: list[tuple[Framer, int, int]] = []
        ended: list[tuple[Job, int]] = []
        size = count = 0
        while lane.jobs:
            job = lane.jobs[0]
            start, ends = job.next, job.framer.ends
            room = BATCH_BYTES - size + (int(ends[start - 1]) if start else 0)
            end = int(np.searchsorted(ends, room, side="right"))
            if end <= start:
                if count:
                    break
                end = start + 1
            size += job.bytes_to(end)
            lane.bytes_waiting -= job.bytes_to(end)
            count += end - start
            parts.append((job.framer, start, end))
            job.next = end
            if end < len(job.framer):
                break
            ended.append((job, count - 1))
            lane.jobs.popleft()
        if len(self._scratch) < size:
            self._scratch = np.empty(size, np.uint8)
        here = delta = 0
        for framer, start, end in parts:
            here = framer.frame(start, end, delta, self._scratch, here)
            delta += end - start
        return RecordBatch.of(self._scratch[:here], count, int(time.time() * 1000)), ended

    async def _hand_over(
        self, producer: Any, lane: Lane, batch: RecordBatch, ended: list[tuple[Job, int]]
    ) -> asyncio.Future[Any]:
        """The answer to come."""
        size = len(batch.payload)
        while self._under_way and self._under_way + size > REQUEST_BYTES:
            self._freed.clear()
            await self._freed.wait()
        self._under_way += size
        while True:
            with suppress(aiokafka_errors.UnknownTopicOrPartitionError):
                if lane.partition in await producer.partitions_for(lane.topic):
                    break
            log.warning("%s[%d] is not there: waiting for it", lane.topic, lane.partition)
            await asyncio.sleep(RETRY_S)
            await producer.client.force_metadata_update()
        answer: asyncio.Future[Any] = await producer.send_batch(
            FinishedBatch(batch), lane.topic, partition=lane.partition
        )
        answer.add_done_callback(partial(self._answered, ended, size))
        return answer

    def _answered(
        self, ended: list[tuple[Job, int]], size: int, answer: asyncio.Future[Any]
    ) -> None:
        self._under_way -= size
        self._freed.set()
        if answer.cancelled():
            return
        if (error := answer.exception()) is not None:
            self._fail(error)
            return
        offset = answer.result().offset
        if offset < 0:
            self._fail(
                aiokafka_errors.DuplicateSequenceNumber("the broker says it had a batch before")
            )
            return
        for job, place in ended:
            if job in self._open:
                self._open.discard(job)
                job.done.set_result(offset + place)

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error if isinstance(error, KafkaException) else _as_ours(error)
        for lane in self._lanes.values():
            lane.jobs.clear()
        jobs, self._open = self._open, set()
        for job in jobs:
            job.done.set_exception(self._failure)


_CLOSED = KafkaException(KafkaError(KafkaError._PURGE_QUEUE))


def _as_ours(error: BaseException) -> KafkaException:
    """aiokafka's error as that of the other client, which everything else here knows."""
    code = error.errno if isinstance(error, aiokafka_errors.KafkaError) else -1
    return KafkaException(KafkaError(code if code > 0 else KafkaError._FAIL, repr(error)))
