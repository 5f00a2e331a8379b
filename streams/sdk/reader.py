"""Reads the topics as typed records with NumPy arrays: no consumer group, no Faust, no ClickHouse.

Telemetry and weights come without the repeats that a restarted worker leaves in the log.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, NamedTuple, Self, TypeVar
from uuid import uuid4

from confluent_kafka import Consumer, KafkaError, TopicPartition

from routekeel.schemas.codec import Decoder
from routekeel.schemas.errors import BadFraming, RegistryUnavailable, SchemaError
from routekeel.schemas.views import View
from routekeel.streams.errors import RoutekeelError, ServiceUnavailable
from routekeel.streams.sdk.config import SdkConfig
from routekeel.streams.sdk.positions import (
    Position,
    bounds,
    offsets_at,
    partitions_of,
    unreachable,
)
from routekeel.streams.sdk.repeats import SeenOffsets

BATCH_RECORDS = 500
BATCH_WAIT_S = 0.2
V = TypeVar("V", bound=View)


class BadRecord(NamedTuple):
    """A record that could not be decoded, with its place and the reason."""

    topic: str
    partition: int
    offset: int
    error: SchemaError


class TopicReader(Generic[V]):
    """An iterator over the records of a topic, and a context manager that closes it.

    Made by read_telemetry, read_weights and read_logits. Iterating may raise RoutekeelError (a bad
    record without `on_error`; records deleted while reading) and ServiceUnavailable (the registry;
    the broker, where the end is not reached for `timeout_s`; while following it is waited for).
    """

    def __init__(
        self,
        config: SdkConfig,
        topic: str,
        view: Callable[[Mapping[str, Any]], V],
        decoder: Decoder,
        *,
        start: Position,
        until: Position | None,
        follow: bool,
        session_id: str | None,
        model: str | None,
        on_error: Callable[[BadRecord], None] | None,
        timeout_s: float,
        drop_repeats: bool,
    ) -> None:
        self._topic, self._view, self._decoder = topic, view, decoder
        self._key = None if session_id is None else session_id.encode()
        self._model, self._on_error = model, on_error
        self._servers, self._timeout_s = config.bootstrap_servers, timeout_s
        self._seen: dict[tuple[str, int], SeenOffsets] | None = {} if drop_repeats else None
        self._pending: deque[Any] = deque()
        self._open: set[int] = set()
        self.repeats_dropped = 0
        self._consumer = Consumer(
            {
                **config.connection(),
                # Never joined and never committed to; librdkafka wants a name.
                "group.id": f"routekeel-reader-{uuid4()}",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                "log_level": 3,
            }
        )
        try:
            self._assign(start, until, follow)
        except BaseException:
            self.close()
            raise

    def _assign(self, start: Position, until: Position | None, follow: bool) -> None:
        consumer, topic = self._consumer, self._topic
        servers, timeout_s = self._servers, self._timeout_s
        partitions = partitions_of(consumer, topic, servers, timeout_s)
        logs = bounds(consumer, topic, partitions, servers, timeout_s)
        self._offsets = offsets_at(consumer, topic, start, logs, servers, timeout_s)
        ends = {} if follow else {partition: high for partition, (_, high) in logs.items()}
        if until is not None:
            ends |= offsets_at(consumer, topic, until, logs, servers, timeout_s)
        self._ends = {p: end for p, end in ends.items() if p in self._offsets}
        self._open = {p for p, at in self._offsets.items() if p not in ends or at < ends[p]}
        consumer.assign([TopicPartition(topic, p, self._offsets[p]) for p in self._open])

    @property
    def offsets(self) -> dict[int, int]:
        """The next offset per partition after the last record given: a `start` to go on from."""
        return dict(self._offsets)

    def __iter__(self) -> Iterator[V]:
        return self

    def __next__(self) -> V:
        progress_s = time.monotonic()
        while True:
            while self._pending:
                found = self._take(self._pending.popleft())
                if found is not None:
                    return found
            if not self._open:
                raise StopIteration
            self._pending.extend(self._consumer.consume(BATCH_RECORDS, BATCH_WAIT_S))
            if self._pending:
                progress_s = time.monotonic()
            elif self._ends and time.monotonic() - progress_s > self._timeout_s:
                raise unreachable(self._servers, f"nothing came for {self._timeout_s:g} s")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def stop(self) -> None:
        """End the iteration soon; may be called from another thread, while following."""
        self._open = set()

    def close(self) -> None:
        """Stop reading and free the connection. A second close does nothing."""
        self._open = set()
        self._pending.clear()
        self._consumer.close()

    def _take(self, message: Any) -> V | None:
        error = message.error()
        if error is not None:
            self._event(error, message)
            return None
        partition, offset = message.partition(), message.offset()
        end = self._ends.get(partition)
        if end is not None and offset >= end:
            self._finish(partition)
            return None
        self._offsets[partition] = offset + 1
        if end is not None and offset + 1 >= end:
            self._finish(partition)
        if self._key is not None and message.key() != self._key:
            return None
        value = self._decode(message)
        if value is None or (self._model is not None and value["model"] != self._model):
            return None
        if self._seen is not None:
            source = value["source_topic_id"], value["source_partition"]
            if not self._seen.setdefault(source, SeenOffsets()).is_new(value["source_offset"]):
                self.repeats_dropped += 1
                return None
        return self._view(value)

    def _decode(self, message: Any) -> dict[str, Any] | None:
        try:
            data = message.value()
            if data is None:
                raise BadFraming("the record has no value")
            return self._decoder.decode(data)
        except RegistryUnavailable as error:
            raise ServiceUnavailable(
                f"the schema registry does not answer: {error.reason}", "check registry.url"
            ) from error
        except SchemaError as error:
            bad = BadRecord(self._topic, message.partition(), message.offset(), error)
            if self._on_error is None:
                raise RoutekeelError(
                    f"the record at {bad.topic}/{bad.partition}/{bad.offset} cannot be decoded: "
                    f"{error}",
                    "pass on_error to go on after bad records",
                ) from error
            self._on_error(bad)
            return None

    def _event(self, error: KafkaError, message: Any) -> None:
        code, partition = error.code(), message.partition()
        if code == KafkaError._PARTITION_EOF:
            # The log may end on records that are never given out, such as transaction markers.
            if message.offset() >= self._ends.get(partition, message.offset() + 1):
                self._finish(partition)
        elif code in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            raise RoutekeelError(
                f"partition {partition} of {self._topic!r} was truncated while it was read",
                "start at 'earliest'; topics.*_retention_h says how long records are kept",
            )
        elif error.fatal() or (not error.retriable() and code > 0):
            raise RoutekeelError(f"reading {self._topic!r} failed: {error.str()}")

    def _finish(self, partition: int) -> None:
        if partition in self._open:
            self._open.discard(partition)
            self._consumer.pause([TopicPartition(self._topic, partition)])
