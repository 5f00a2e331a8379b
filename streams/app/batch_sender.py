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
from aiokafka import AIOKafkaProducer
from aiokafka import errors as aiokafka_errors
from confluent_kafka import KafkaError, KafkaException
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth

from routekeel.streams.app.faust_app import credentials
from routekeel.streams.app.record_batch import FinishedBatch, Framer, RecordBatch
from routekeel.streams.settings import KafkaSettings
from routekeel.streams.topology.record_block import RecordBlock

log = logging.getLogger(__name__)

BATCH_BYTES = 1_000_000
"""Of a batch before compression, unless one record is larger."""
RETRY_S = 0.5
STOP_S = 2.0


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
            with suppress(Exception):
                await asyncio.wait_for(self._producer.result().stop(), STOP_S)
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    async def _connect(self) -> None:
        while True:
            producer = AIOKafkaProducer(**self._options)
            # A batch that waited longer than this would be given up when its partition has no leader for a
            # moment, which is what a broker that starts again says first.
            producer._message_accumulator._batch_ttl = float("inf")
            try:
                await producer.start()
            except aiokafka_errors.KafkaError as error:
                log.warning("cannot connect to Kafka: %s", error)
                await producer.stop()
                await asyncio.sleep(RETRY_S)
            except Exception as error:
                await producer.stop()
                self._fail(error)
                return
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
        try:
            while True:
                await lane.due.wait()
                lane.due.clear()
                if lane.timer is not None:
                    lane.timer.cancel()
                    lane.timer = None
                while lane.jobs and self._failure is None:
                    batch, ended = self._next_batch(lane)
                    await self._hand_over(producer, lane, batch, ended)
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
    ) -> None:
        """Waits until the batch before it is on its way."""
        while True:
            try:
                if lane.partition in await producer.partitions_for(lane.topic):
                    acknowledged = await producer.send_batch(
                        FinishedBatch(batch), lane.topic, partition=lane.partition
                    )
                    break
            except aiokafka_errors.UnknownTopicOrPartitionError:
                log.warning("topic %s is not there (or the broker is not): waiting", lane.topic)
            except aiokafka_errors.KafkaTimeoutError:
                continue  # the one before it still waits for the broker
            await asyncio.sleep(RETRY_S)
        acknowledged.add_done_callback(partial(self._acknowledged, ended))

    def _acknowledged(self, ended: list[tuple[Job, int]], answer: asyncio.Future[Any]) -> None:
        if answer.cancelled():
            return
        error = answer.exception()
        if error is not None:
            self._fail(error)
            return
        for job, place in ended:
            if job in self._open:
                self._open.discard(job)
                job.done.set_result(answer.result().offset + place)

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
    code = getattr(error, "errno", -1)
    known = isinstance(code, int) and code >= 0
    return KafkaException(KafkaError(code if known else KafkaError._FAIL, str(error)))


def producer_options(kafka: KafkaSettings) -> dict[str, Any]:
    """What an idempotent AIOKafkaProducer needs. Raises ConfigurationError as `tls_context` does."""
    return {
        "bootstrap_servers": [server.strip() for server in kafka.bootstrap_servers.split(",")],
        "enable_idempotence": True,
        **credentials_to_aiokafka_auth(credentials(kafka)),
    }
