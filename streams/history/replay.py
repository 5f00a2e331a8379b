"""Computes a stretch of the log again, from the logits topic alone, with the worker's own topology.

A state depends on everything before it, so the replay begins where the log begins. A session that
was under way before that (retention has taken its first chunks) cannot be had again: its outputs are
passed over and counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from routekeel.schemas.codec import Decoder, Encoder
from routekeel.schemas.errors import RegistryUnavailable
from routekeel.schemas.records import DEAD_LETTER, ROUTER_LOGITS, TELEMETRY, WEIGHTS
from routekeel.schemas.registry import FixedSchemaIds
from routekeel.schemas.routes import with_full_route
from routekeel.streams.errors import ServiceUnavailable
from routekeel.streams.registry import registry_of
from routekeel.streams.settings import Settings
from routekeel.streams.topology.changelog import MemoryStore
from routekeel.streams.topology.dead_letter import fitting_fields
from routekeel.streams.topology.decoding import decode_or_refuse
from routekeel.streams.topology.from_settings import topology_config
from routekeel.streams.topology.outputs import OutputBuilder
from routekeel.streams.topology.partition import PartitionProcessor
from routekeel.streams.topology.records import Source, SourceRecord

BATCH_RECORDS = 5_000
SILENCE_S = 30.0
SESSIONS_SEEN_MAX = 2_000_000

Fields = Mapping[str, Any]


@dataclass(slots=True)
class Replayed:
    """What a block of the log leads to: decoded Telemetry, Weights and DeadLetter records, by offset.

    `passed_over` are offsets of sessions that began before the log does.
    """

    first: int
    end: int
    telemetry: list[Fields] = field(default_factory=list)
    weights: list[Fields] = field(default_factory=list)
    dead_letters: list[Fields] = field(default_factory=list)
    passed_over: list[int] = field(default_factory=list)


class Replay:
    """Replays one partition of the logits topic from its start at `log_start`."""

    def __init__(self, settings: Settings, source: Source, log_start: int) -> None:
        self._settings = settings
        self._source = source
        self._log_start = log_start
        ids = registry_of(settings)
        own = FixedSchemaIds()
        telemetry = Encoder(TELEMETRY, own.register(TELEMETRY, ""))
        weights = Encoder(WEIGHTS, own.register(WEIGHTS, ""))
        self._telemetry, self._weights = Decoder(TELEMETRY, own), Decoder(WEIGHTS, own)
        self._letter = Encoder(DEAD_LETTER, own.register(DEAD_LETTER, ""))
        config = topology_config(settings)
        logits = Decoder(ROUTER_LOGITS, ids)
        self._processor = PartitionProcessor(
            source,
            config,
            lambda value: decode_or_refuse(logits, value),
            OutputBuilder(config, telemetry.encode, weights.encode),
            MemoryStore(),
        )
        if log_start:
            self._processor.lost_until(log_start)
        self._cut_sessions: set[bytes] = set()
        self._seen: set[bytes] = set()

    def blocks(self, first: int, end: int) -> Iterator[Replayed]:
        """The outputs of offsets first ≤ o < end, block by block. Raises ServiceUnavailable.

        Blocks before `first` come too, empty, so that progress can be told.
        """
        try:
            for records in self._read(end):
                yield self._apply(records, first)
        except KafkaException as error:
            raise ServiceUnavailable(f"cannot read the log: {error.args[0].str()}") from error
        except RegistryUnavailable as error:
            raise ServiceUnavailable(f"the schema registry does not answer: {error}") from error

    def _read(self, end: int) -> Iterator[list[SourceRecord]]:
        own = {
            "group.id": "routekeel-replay",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
        }
        consumer = Consumer(self._settings.kafka.client_config() | own)
        place = TopicPartition(self._source.topic, self._source.partition, self._log_start)
        try:
            consumer.assign([place])
            position, silent_s = self._log_start, 0.0
            while position < end:
                messages = consumer.consume(min(BATCH_RECORDS, end - position), timeout=1.0)
                silent_s = 0.0 if messages else silent_s + 1.0
                if silent_s >= SILENCE_S:
                    raise ServiceUnavailable(f"the broker sends nothing at offset {position}")
                for message in messages:
                    if message.error() is not None:
                        raise KafkaException(message.error())
                if messages:
                    position = messages[-1].offset() + 1
                    yield [
                        SourceRecord(
                            m.offset(), m.timestamp()[1], m.key(), m.value(), m.headers() or ()
                        )
                        for m in messages
                    ]
        finally:
            consumer.close()

    def _apply(self, records: list[SourceRecord], first: int) -> Replayed:
        result = self._processor.apply(records)
        block = Replayed(records[0].offset, records[-1].offset + 1)
        for output in result.outputs:
            telemetry: Any = self._telemetry.decode(output.telemetry)
            if self._is_cut(output.key, telemetry):
                block.passed_over.append(output.offset)
            elif output.offset >= first:
                block.telemetry.append(telemetry)
                if output.weights is not None:
                    block.weights.append(with_full_route(self._weights.decode(output.weights)))
        block.dead_letters = [
            fitting_fields(
                self._source,
                letter,
                "worker",
                self._letter.encode,
                self._settings.topics.record_bytes_max,
            )
            for letter in result.dead_letters
            if letter.record.offset >= first
        ]
        # Nothing is ever written: the state moves on at once, and with it goes what was evicted.
        self._processor.checkpointed(0)
        return block

    def _is_cut(self, session: bytes, telemetry: Fields) -> bool:
        """Whether the session was under way before the log begins."""
        if self._log_start and session not in self._seen:
            if len(self._seen) >= SESSIONS_SEEN_MAX:
                self._forget()
            self._seen.add(session)
            if telemetry["position"] > 0 or telemetry["sequence"] > 0:
                self._cut_sessions.add(session)
        return session in self._cut_sessions

    def _forget(self) -> None:
        """Sessions seen again from here on count as cut: passed over, and never compared wrongly."""
        self._seen.clear()
        self._cut_sessions.clear()
