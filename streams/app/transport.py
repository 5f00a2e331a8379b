"""Faust's Kafka edge, changed in two places: whole batches in, and commits that follow the watermark.

Faust hands an agent one message at a time, which costs 60–330 µs each. Here the scheduler yields one
event per fetched partition batch instead. Its bookkeeping of acknowledged messages and gaps is
replaced by the worker's own: what may be committed is what a checkpoint has made durable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from faust.transport.drivers import aiokafka as driver
from faust.transport.utils import DefaultSchedulingStrategy
from faust.types import TP

FETCH_WAIT_MS = 100
CommittableOffset = Callable[[str, int], int | None]


class BatchRecord(NamedTuple):
    """Looks like one Kafka record to Faust; `value` is the list of the real ones, all of one partition."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    timestamp_type: int
    headers: Any
    key: bytes | None
    value: list[Any]
    checksum: int | None
    serialized_key_size: int
    serialized_value_size: int


class CoalescingScheduler(DefaultSchedulingStrategy):
    """Delivers every fetched partition batch as one event.

    >>> list(CoalescingScheduler().iterate({}))
    []
    """

    def iterate(self, records: Mapping[TP, list[Any]]) -> Iterator[tuple[TP, Any]]:
        """One (partition, batch) per partition, in the order the fetcher gave them."""
        for tp, batch in records.items():
            if not batch:
                continue
            last = batch[-1]
            yield (
                tp,
                BatchRecord(
                    tp.topic,
                    tp.partition,
                    last.offset,
                    last.timestamp,
                    last.timestamp_type,
                    (),
                    None,
                    batch,
                    None,
                    0,
                    0,
                ),
            )


class PromptThread(driver.AIOKafkaConsumerThread):
    """Asks for records with a short wait. There is one request at a time to a broker: while one waits
    for partitions that have nothing new, those that have are not asked for; Faust's waits for 1.5 s.
    """

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS
        return consumer


class WatermarkConsumer(driver.Consumer):
    """Commits what the worker says is durable, whatever Faust thinks was acknowledged."""

    committable_offset: CommittableOffset

    def _new_consumer_thread(self) -> PromptThread:
        return PromptThread(self, loop=self.loop, beacon=self.beacon)

    def _new_offset(self, tp: TP) -> int | None:
        # Faust's lists of acknowledged offsets would grow for ever, since nothing else trims them.
        self._acked[tp].clear()
        self._acked_index[tp].clear()
        return self.committable_offset(tp.topic, tp.partition)

    async def _seek(self, partition: TP, offset: int) -> None:
        # Faust calls the client from the app's thread, under the feet of the consumer's own, which
        # then misses a partition that it was just about to hand out.
        await self._thread.call_thread(self._thread.seek, partition, offset)

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Offsets between two batches are no gap: a batch event carries only its last offset."""


class WatermarkTransport(driver.Transport):
    """Makes WatermarkConsumers that ask `committable_offset`."""

    Consumer = WatermarkConsumer

    def __init__(self, *args: Any, committable_offset: CommittableOffset, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._committable_offset = committable_offset

    def create_consumer(self, callback: Any, **kwargs: Any) -> WatermarkConsumer:
        """Faust asks for the one consumer of the app here."""
        consumer: WatermarkConsumer = super().create_consumer(callback, **kwargs)
        consumer.committable_offset = self._committable_offset
        return consumer
