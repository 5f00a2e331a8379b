"""The state log on the broker: reads a partition's changelog, follows those of others, writes checkpoints.

Reading is librdkafka's work and not Faust's table recovery: that one applies records one by one
(about 10,000 a second), logs and goes on when a record fails, and cannot leave out a torn tail
(docs/decisions/0004-state-log.md).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from routekeel.streams.app.batch_sender import BatchSender
from routekeel.streams.app.partitions import Progress
from routekeel.streams.app.standby import Followed
from routekeel.streams.errors import ServiceUnavailable
from routekeel.streams.log_bounds import log_bounds
from routekeel.streams.settings import Settings
from routekeel.streams.topics import admin_client, changelog_topic
from routekeel.streams.topology.changelog import ChangelogRecord, Checkpoint
from routekeel.streams.topology.changelog_reader import ChangelogReader
from routekeel.streams.topology.record_block import RecordBlock

READ_BATCH = 10_000
READ_WAIT_S = 0.1
READ_QUEUE_KB = 32_768
"""What librdkafka may have fetched ahead, per partition being recovered and for all that are followed."""
RECOVERY_THREADS = 4
FOLLOW_WAIT_S = 0.2
FOLLOW_ENDS_EVERY_S = 1.0
BROKER_TIMEOUT_S = 30.0
WRITE_BLOCKS = 4
"""How much of a checkpoint is on its way at a time, in blocks of changelog.py's BLOCK_BYTES."""
Take = Callable[[int, bytes, bytes | None, Any], None]
"""`ChangelogReader.feed` or `review`."""


def feed(take: Take, message: Message) -> None:
    """One message to a reader's `feed` or `review`.

    Raises KafkaException for an error in its place, ValueError for a foreign record.
    """
    error = message.error()
    if error is not None:
        raise KafkaException(error)
    take(message.offset(), message.key(), message.value(), message.headers)


def read_to(
    consumer: Consumer, reader: ChangelogReader, high: int, take: Take, progress: Progress
) -> None:
    """Read the assigned partition until `high`. Raises KafkaException, also when nothing comes."""
    start, silent_since = reader.next_offset, time.monotonic()
    while reader.next_offset < high:
        # consume() waits for as many as are asked for: compaction may have left fewer.
        messages: list[Message] = consumer.consume(
            min(READ_BATCH, high - reader.next_offset), timeout=READ_WAIT_S
        )
        for message in messages:
            feed(take, message)
        if messages:
            silent_since = time.monotonic()
        else:
            # Compaction may have removed the last offsets: then the position moves, records do not.
            reader.caught_up(consumer.position(consumer.assignment())[0].offset)
            if time.monotonic() - silent_since > BROKER_TIMEOUT_S:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        progress(min(reader.next_offset, high) - start, high - start)


class ChangelogTopic:
    """The changelog on the broker; the waiting is done in threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topic = changelog_topic(settings)
        self._admin = admin_client(settings)
        self._threads = ThreadPoolExecutor(RECOVERY_THREADS, "recovery")
        self._sender = BatchSender(settings.kafka, "changelog")

    async def recover(self, partition: int, reader: ChangelogReader, progress: Progress) -> None:
        """Read on to the present end. Raises ServiceUnavailable when the broker does not answer,
        ValueError for a foreign record or a store of another log.
        """
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._threads, self._recover, partition, reader, progress)

    def _recover(self, partition: int, reader: ChangelogReader, progress: Progress) -> None:
        low, high = self._bounds([partition])[partition]
        if reader.next_offset > high:
            raise ValueError(
                f"the local store of {self._topic}[{partition}] is ahead of the changelog "
                f"({reader.next_offset} > {high}): the topic was recreated; remove the local store"
            )
        reader.caught_up(low)
        progress(0, high - reader.next_offset)
        if reader.next_offset == high:
            return
        self._read(partition, reader, high, reader.feed, progress)

    async def review(self, partition: int, reader: ChangelogReader, end: int) -> None:
        """Read what lies below `end` without adopting it. Raises as `recover` does."""
        loop = asyncio.get_running_loop()
        # Not among the recoveries, which may take long: meanwhile no other checkpoint is written.
        await loop.run_in_executor(None, self._review, partition, reader, end)

    def _review(self, partition: int, reader: ChangelogReader, end: int) -> None:
        reader.caught_up(self._bounds([partition])[partition][0])
        self._read(partition, reader, end, reader.review, lambda read, total: None)

    def _read(
        self, partition: int, reader: ChangelogReader, end: int, take: Take, progress: Progress
    ) -> None:
        consumer = self._consumer()
        try:
            consumer.assign([TopicPartition(self._topic, partition, reader.next_offset)])
            read_to(consumer, reader, end, take, progress)
        except KafkaException as error:
            raise ServiceUnavailable(
                f"cannot read the state log {self._topic}[{partition}]: {error.args[0].str()}"
            ) from error
        finally:
            consumer.close()

    async def follow(
        self, readers: Mapping[int, ChangelogReader], stop: threading.Event, followed: Followed
    ) -> None:
        """Feed the readers with what is written until `stop` is set; in a thread of its own, since it
        may last for days.
        """
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, "standby") as thread:
            await loop.run_in_executor(thread, self._follow, readers, stop, followed)

    def _follow(
        self, readers: Mapping[int, ChangelogReader], stop: threading.Event, followed: Followed
    ) -> None:
        for partition, (low, _) in self._bounds(list(readers)).items():
            readers[partition].caught_up(low)
        consumer = self._consumer()
        try:
            consumer.assign(
                [TopicPartition(self._topic, p, r.next_offset) for p, r in readers.items()]
            )
            asked_at = float("-inf")
            while not stop.is_set():
                messages = consumer.consume(READ_BATCH, timeout=FOLLOW_WAIT_S)
                for message in messages:
                    feed(readers[message.partition()].feed, message)
                if time.monotonic() - asked_at >= FOLLOW_ENDS_EVERY_S:
                    asked_at = time.monotonic()
                    ends = self._bounds(list(readers))
                behind = sum(max(0, ends[p][1] - r.next_offset) for p, r in readers.items())
                followed(len(messages), behind)
        finally:
            consumer.close()

    def _bounds(self, partitions: list[int]) -> dict[int, tuple[int, int]]:
        found = log_bounds(self._settings, [(self._topic, p) for p in partitions], self._admin)
        return {partition: bounds for (_, partition), bounds in found.items()}

    def _consumer(self) -> Consumer:
        return Consumer(
            self._settings.kafka.client_config()
            | {
                "group.id": f"{self._settings.worker.app_id}-recovery",
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "enable.partition.eof": False,
                "fetch.wait.max.ms": 20,
                "queued.max.messages.kbytes": READ_QUEUE_KB,
            }
        )

    async def write(self, partition: int, records: Sequence[ChangelogRecord]) -> tuple[int, int]:
        """Write a checkpoint: (offset of the last record, bytes). Raises KafkaException when one failed."""
        # The watermark goes when all it covers is in the log. In one go with the rest it could arrive where
        # one of them did not, being too large for the broker.
        mark = records[-1]
        size, on_way = 0, deque[Future[int]]()
        for block in _blocks(records):
            size += block.size
            on_way.append(self._send(partition, block))
            if len(on_way) == WRITE_BLOCKS:
                await asyncio.wrap_future(on_way.popleft())
        for written in on_way:
            await asyncio.wrap_future(written)
        last = RecordBlock.of([mark.key], [mark.value])
        return await asyncio.wrap_future(self._send(partition, last)), size + last.size

    def _send(self, partition: int, block: RecordBlock) -> Future[int]:
        return self._sender.send(self._topic, partition, block)

    def close(self) -> None:
        """Wait no longer for what is being written: without a broker that may take minutes."""
        self._sender.close()


def _blocks(records: Sequence[ChangelogRecord]) -> Iterator[RecordBlock]:
    """All but the watermark."""
    if isinstance(records, Checkpoint):
        yield from records.blocks()
    elif len(records) > 1:
        keys, values, headers = zip(*records[:-1], strict=True)
        yield RecordBlock.of(
            keys, values, {i: header for i, header in enumerate(headers) if header}
        )
