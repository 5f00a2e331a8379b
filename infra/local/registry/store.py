"""The registry's log: writes to the compacted topic, and the reader that applies what comes back.

A write is answered only after the topic has acknowledged it and the reader has applied it, so that
an answer never says what a restart would forget.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from routekeel.infra.local.registry.faults import store_failed
from routekeel.infra.local.registry.state import State, Version

logger = logging.getLogger(__name__)

TOPIC = "_schemas"
BROKER_TIMEOUT_S = 30.0
WRITE_TIMEOUT_S = 15.0
POLL_S = 0.2
# A broker that comes back is used at once; librdkafka's own limit of 10 s outlasts callers' patience.
RECONNECT = {"reconnect.backoff.ms": 50, "reconnect.backoff.max.ms": 500}
_TRANSIENT = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._TRANSPORT,
        KafkaError._TIMED_OUT,
    }
)


def _while_retriable() -> Retrying:
    """Attempts for as long as the broker says to try again: a new topic has no leader at first."""
    return Retrying(
        retry=retry_if_exception(
            lambda error: isinstance(error, KafkaException) and error.args[0].code() in _TRANSIENT
        ),
        stop=stop_after_delay(BROKER_TIMEOUT_S),
        wait=wait_random_exponential(0.05, max=0.5),
        reraise=True,
    )


class Store:
    """Owns the state. `open` and the methods that write belong to one event loop."""

    def __init__(self, bootstrap: str, topic: str = TOPIC) -> None:
        self.state = State()
        self.writing = asyncio.Lock()
        self.failed = asyncio.Event()
        self._bootstrap = bootstrap
        self._topic = topic
        self._applied = -1  # offset of the last record taken in
        self._advanced = asyncio.Condition()
        self._stop = threading.Event()
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                **RECONNECT,
                "acks": "all",
                "enable.idempotence": True,
                "message.timeout.ms": int(WRITE_TIMEOUT_S * 1000),
                "linger.ms": 0,
            }
        )
        self._reader: threading.Thread | None = None

    async def open(self) -> None:
        """Make sure that the topic is there and take in all of it. Raises on a missing broker."""
        loop = asyncio.get_running_loop()
        end = await loop.run_in_executor(None, self._prepare)
        self._reader = threading.Thread(target=self._read, args=(loop,), daemon=True)
        self._reader.start()
        async with asyncio.timeout(BROKER_TIMEOUT_S), self._advanced:
            await self._advanced.wait_for(lambda: self._applied >= end - 1 or self.failed.is_set())

    async def close(self) -> None:
        """Stop reading; pending writes have been awaited by whoever made them."""
        self._stop.set()
        if self._reader is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._reader.join)

    async def put_version(self, version: Version) -> None:
        """Write a version, new or marked deleted."""
        key = {"keytype": "SCHEMA", "subject": version.subject, "version": version.number}
        value = {
            "subject": version.subject,
            "version": version.number,
            "id": version.schema_id,
            "schema": version.text,
            "deleted": version.deleted,
        }
        await self._write({**key, "magic": 1}, value)

    async def put_level(self, subject: str | None, level: str) -> None:
        """Write a compatibility level; without a subject the one for all."""
        key = {"keytype": "CONFIG", "subject": subject, "magic": 0}
        await self._write(key, {"compatibilityLevel": level})

    async def _write(self, key: dict[str, Any], value: dict[str, Any]) -> None:
        loop = asyncio.get_running_loop()
        written: asyncio.Future[int] = loop.create_future()

        def settle(error: KafkaError | None, offset: int) -> None:
            if written.done():
                return
            if error is not None:
                written.set_exception(store_failed(str(error)))
            else:
                written.set_result(offset)

        def delivered(error: KafkaError | None, message: Any) -> None:
            loop.call_soon_threadsafe(settle, error, -1 if error else message.offset())

        # Fixed order of keys: compaction compares the key's bytes.
        packed = [json.dumps(part, sort_keys=True, separators=(",", ":")) for part in (key, value)]
        try:
            self._producer.produce(
                self._topic, key=packed[0], value=packed[1], partition=0, on_delivery=delivered
            )
            await loop.run_in_executor(None, self._producer.flush, WRITE_TIMEOUT_S)
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                offset = await written
                async with self._advanced:
                    await self._advanced.wait_for(lambda: self._applied >= offset)
        except (KafkaException, BufferError, TimeoutError) as error:
            raise store_failed(str(error) or "the broker does not answer") from error

    def _prepare(self) -> int:
        """Create the topic if it is missing; its end offset. Blocks."""
        admin = AdminClient({"bootstrap.servers": self._bootstrap})
        topic = NewTopic(
            self._topic,
            num_partitions=1,
            replication_factor=-1,
            config={"cleanup.policy": "compact"},
        )
        for future in admin.create_topics([topic], operation_timeout=BROKER_TIMEOUT_S).values():
            try:
                future.result(BROKER_TIMEOUT_S)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise
        consumer = self._consumer()
        try:
            place = TopicPartition(self._topic, 0)
            for attempt in _while_retriable():
                with attempt:
                    _, end = consumer.get_watermark_offsets(place, timeout=BROKER_TIMEOUT_S)
        finally:
            consumer.close()
        return int(end)

    def _consumer(self) -> Consumer:
        return Consumer(
            {
                "bootstrap.servers": self._bootstrap,
                **RECONNECT,
                "group.id": "routekeel-registry",  # required, never committed to
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
            }
        )

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        """The reader thread: hands every record to the event loop, in order."""
        consumer = self._consumer()
        try:
            consumer.assign([TopicPartition(self._topic, 0, 0)])
            while not self._stop.is_set():
                message = consumer.poll(POLL_S)
                if message is None:
                    continue
                error = message.error()
                if error is None:
                    self._hand_over(loop, message.offset(), message.key(), message.value())
                elif error.code() == KafkaError._PARTITION_EOF:
                    # Compaction may have removed the last offsets: the end is reached all the same.
                    self._hand_over(loop, message.offset() - 1, None, None)
                elif error.fatal() or error.code() == KafkaError.OFFSET_OUT_OF_RANGE:
                    raise KafkaException(error)
        except Exception:
            logger.exception("reading %s failed", self._topic)
            loop.call_soon_threadsafe(self.failed.set)
        finally:
            consumer.close()

    def _hand_over(
        self, loop: asyncio.AbstractEventLoop, offset: int, key: bytes | None, value: bytes | None
    ) -> None:
        future = asyncio.run_coroutine_threadsafe(self._apply(offset, key, value), loop)
        future.result()

    async def _apply(self, offset: int, key: bytes | None, value: bytes | None) -> None:
        try:
            self.state.apply(key, value)
        except (ValueError, KeyError, TypeError):
            logger.exception("record %d of %s is damaged and left aside", offset, self._topic)
        async with self._advanced:
            self._applied = max(self._applied, offset)
            self._advanced.notify_all()
