"""Sends outputs and dead letters; knows when all of them are durable.

What was handed over may still be in flight when the next batch is applied: only a checkpoint has to wait.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from contextlib import suppress
from functools import partial

from confluent_kafka import KafkaError, KafkaException

from routekeel.streams.app.batch_sender import BatchSender
from routekeel.streams.settings import Settings
from routekeel.streams.topology.record_block import RecordBlock

QUEUE_BYTES_MAX = 256 * 2**20
QUEUE_RECORDS_MAX = 2_000_000


class OutputProducer:
    """A producer with bounds, whose failures surface at the next call."""

    def __init__(self, settings: Settings, records_max: int = QUEUE_RECORDS_MAX) -> None:
        self._records_max = records_max
        self._record_bytes_max = settings.topics.record_bytes_max
        self._sender = BatchSender(settings.kafka, "outputs", settings.worker.linger_ms / 1000)
        self._lock = threading.Lock()
        self._waiting: dict[Future[int], None] = {}  # in the order in which they came
        self.records_waiting = 0
        self.bytes_waiting = 0
        self._failure: BaseException | None = None

    def send(self, topic: str, partition: int, block: RecordBlock) -> bool:
        """Hand records over; False, and nothing of it, when the queue is full.

        Raises KafkaException after a failure, and for a record that is larger than a topic takes.
        """
        self._raise()
        if self.records_waiting >= self._records_max or self.bytes_waiting >= QUEUE_BYTES_MAX:
            return False
        sizes = block.sizes
        if sizes.max(initial=0) > self._record_bytes_max:
            self._failure = KafkaException(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
            raise self._failure
        if len(block):
            done, size = self._sender.send(topic, partition, block), int(sizes.sum())
            with self._lock:
                self._waiting[done] = None
                self.records_waiting += len(block)
                self.bytes_waiting += size
            done.add_done_callback(partial(self._arrived, len(block), size))
        return True

    async def room(self) -> None:
        """Wait until something has arrived. Raises KafkaException when something failed."""
        await self._oldest()
        self._raise()

    async def durable(self) -> None:
        """Wait until everything handed over is acknowledged. Raises KafkaException when something failed."""
        self._sender.hurry()
        while self._waiting:
            await self._oldest()
        self._raise()

    def poll(self) -> None:
        """Raise what has failed."""
        self._raise()

    def close(self) -> None:
        """Give up what has not arrived, and disconnect."""
        self._sender.close()

    async def _oldest(self) -> None:
        """Wait until what was handed over first has arrived, or failed."""
        with self._lock:
            oldest = next(iter(self._waiting), None)
        if oldest is not None:
            with suppress(KafkaException):
                await asyncio.wrap_future(oldest)

    def _arrived(self, records: int, size: int, done: Future[int]) -> None:
        with self._lock:
            # First, or `durable` could see that nothing waits, and not yet why.
            self._failure = self._failure or done.exception()
            self._waiting.pop(done)
            self.records_waiting -= records
            self.bytes_waiting -= size

    def _raise(self) -> None:
        if self._failure is not None:
            raise self._failure
