"""Reads a partition's changelog into its store, and writes checkpoints to it.

Reading is librdkafka's work and not Faust's table recovery: that one applies records one by one
(about 10,000 a second), logs and goes on when a record fails, and cannot leave out a torn tail
(docs/decisions/0004-state-log.md).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from routekeel.streams.errors import ServiceUnavailable
from routekeel.streams.settings import Settings
from routekeel.streams.topics import changelog_topic, log_bounds
from routekeel.streams.topology.changelog import (
    NOT_KNOWN,
    ChangelogReader,
    ChangelogRecord,
    LogEnd,
    StateStore,
)

log = logging.getLogger(__name__)

READ_BATCH = 10_000
READ_WAIT_S = 0.1
BROKER_TIMEOUT_S = 30.0

Progress = Callable[[int, int], None]
"""Called with (records read, records in all) while a changelog is read."""


def recover(
    settings: Settings, partition: int, store: StateStore, progress: Progress | None = None
) -> tuple[int, LogEnd]:
    """Bring `store` up to the end of its changelog: (records read, that end). Blocking.

    Raises ServiceUnavailable when the broker does not answer, ValueError for a foreign record.
    """
    topic = changelog_topic(settings)
    consumer = Consumer(
        settings.kafka.client_config()
        | {
            "group.id": f"{settings.worker.app_id}-recovery",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": False,
            "fetch.wait.max.ms": 20,
            "queued.max.messages.kbytes": 131_072,
        }
    )
    try:
        tp = TopicPartition(topic, partition)
        low, high = log_bounds(settings, [(topic, partition)])[topic, partition]
        start = max(low, store.position + 1)
        if store.position >= high:
            raise ValueError(
                f"the local store of {topic}[{partition}] is ahead of the changelog "
                f"({store.position} ≥ {high}): the topic was recreated; remove the local store"
            )
        tp.offset = start
        consumer.assign([tp])
        return _read(consumer, store, start, high, progress), LogEnd(high)
    except KafkaException as error:
        raise ServiceUnavailable(
            f"cannot read the state log {topic}[{partition}]: {error.args[0].str()}"
        ) from error
    finally:
        consumer.close()


def _read(
    consumer: Consumer, store: StateStore, start: int, high: int, progress: Progress | None
) -> int:
    reader = ChangelogReader(store)
    position, silent_since = start, time.monotonic()
    while position < high:
        # consume() waits for as many as are asked for: compaction may have left fewer.
        messages: list[Message] = consumer.consume(
            min(READ_BATCH, high - position), timeout=READ_WAIT_S
        )
        for message in messages:
            error = message.error()
            if error is not None:
                raise KafkaException(error)
            reader.feed(message.offset(), message.key(), message.value(), message.headers())
            position = message.offset() + 1
        if messages:
            silent_since = time.monotonic()
            if progress is not None:
                progress(position - start, high - start)
            continue
        # Compaction may have removed the very last offsets: then the position moves, records do not.
        moved = consumer.position(consumer.assignment())[0].offset
        position = max(position, moved)
        if time.monotonic() - silent_since > BROKER_TIMEOUT_S:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
    if reader.torn:
        log.info("left out %d records of a checkpoint that was never finished", reader.torn)
    return reader.records


class ChangelogTopic:
    """The changelog on the broker; the waiting is done in threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topic = changelog_topic(settings)
        self._ends: dict[int, LogEnd] = {}
        self._producer = Producer(
            settings.kafka.client_config()
            | {
                "enable.idempotence": True,
                "linger.ms": 1,
                "compression.type": "lz4",
                "message.max.bytes": settings.topics.record_bytes_max,
                "queue.buffering.max.messages": 2_000_000,
                "queue.buffering.max.kbytes": 1_048_576,
            }
        )

    async def recover(self, partition: int, store: StateStore) -> int:
        """Bring a store up to the end of its changelog; how many records were read."""

        def progress(done: int, total: int) -> None:
            log.info("recovering partition %d: %d of %d changelog records", partition, done, total)

        loop = asyncio.get_running_loop()
        records, self._ends[partition] = await loop.run_in_executor(
            None, recover, self._settings, partition, store, progress
        )
        return records

    async def write(self, partition: int, records: Sequence[ChangelogRecord]) -> tuple[int, int]:
        """Write a checkpoint: (the store's new position, bytes). Raises KafkaException when one failed."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, self._write, partition, records)

    def _write(self, partition: int, records: Sequence[ChangelogRecord]) -> tuple[int, int]:
        failures: list[KafkaError] = []
        offsets: list[int] = []
        size = 0

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                failures.append(error)
            else:
                offsets.append(message.offset())

        for key, value, headers in records:
            size += len(key) + len(value or b"")
            self._produce(
                key=key, value=value, headers=headers, partition=partition, on_delivery=delivered
            )
        self._producer.flush()
        if failures:
            raise KafkaException(failures[0])
        position = self._ends[partition].wrote(min(offsets), max(offsets), len(records))
        if position == NOT_KNOWN:
            log.warning(
                "another worker writes to %s[%d], too: one that was stopped and woke up, or this one; "
                "the next recovery reads what it wrote", self._topic, partition,
            )  # fmt: skip
        return position, size

    def _produce(self, **message: Any) -> None:
        while True:
            try:
                self._producer.produce(self._topic, **message)
                return
            except BufferError:
                self._producer.poll(0.1)
