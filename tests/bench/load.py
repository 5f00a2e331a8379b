"""The events every contender reads: written once to a topic of their own, the same for all."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from confluent_kafka import Producer

from routekeel.schemas.codec import Encoder
from routekeel.schemas.logits import pack
from routekeel.schemas.records import ROUTER_LOGITS
from routekeel.schemas.registry import SchemaIds, subject_of
from routekeel.streams.settings import Settings

from .cadence import Every

VARIETY = 256


@dataclass(frozen=True)
class Shape:
    """T tokens × L layers × E experts per event; top_m > 0 sends the m largest logits only."""

    tokens: int
    layers: int
    experts: int
    top_m: int = 0

    @property
    def encoding(self) -> str:
        """The encoding of the logits."""
        return "TOPM_F16" if self.top_m else "F16"

    @property
    def key(self) -> str:
        """A name for topics."""
        return f"{self.tokens}-{self.layers}-{self.experts}-{self.encoding.lower()}"

    def __str__(self) -> str:
        kind = f"TOPM_F16 m={self.top_m}" if self.top_m else "F16"
        return f"T={self.tokens} L={self.layers} E={self.experts} {kind}"


class Conversations:
    """Which session speaks next, and where it is: in turns, or drawn at random with a generator."""

    def __init__(self, sessions: int) -> None:
        self._spoken = [0] * sessions

    def turns(self, events: int) -> Iterator[tuple[int, int]]:
        """(session, its sequence number), one session after the other."""
        for index in range(events):
            yield self._next(index % len(self._spoken))

    def at_random(self, events: int, rng: np.random.Generator) -> Iterator[tuple[int, int]]:
        """(session, its sequence number), every session as likely."""
        for session in rng.integers(len(self._spoken), size=events).tolist():
            yield self._next(session)

    def _next(self, session: int) -> tuple[int, int]:
        sequence = self._spoken[session]
        self._spoken[session] = sequence + 1
        return session, sequence


def weights_expected(shape: Shape, events: int, sessions: int, every: Every) -> int:
    """How many Weights records belong to events that were written in turns."""
    return sum(
        every.due(sequence * shape.tokens, shape.tokens, sequence == 0)[0]
        for _, sequence in Conversations(sessions).turns(events)
    )


def write_events(settings: Settings, shape: Shape, events: int, sessions: int, seed: int) -> float:
    """Write events of sessions in turns to the logits topic; returns MB of values."""
    writer = EventWriter(settings, shape, seed)
    return writer.write(Conversations(sessions).turns(events))


class EventWriter:
    """Writes events of one shape to the logits topic."""

    def __init__(self, settings: Settings, shape: Shape, seed: int) -> None:
        ids = SchemaIds(settings.registry.url)
        schema_id = ids.register(ROUTER_LOGITS, subject_of(settings.topics.logits))
        self._encode = Encoder(ROUTER_LOGITS, schema_id).encode
        self._settings, self._shape = settings, shape
        rng = np.random.default_rng(seed)
        size = (VARIETY, shape.tokens, shape.layers, shape.experts)
        logits = rng.normal(scale=2, size=size).astype("<f2")
        self._logits = [pack(one, shape.encoding, shape.top_m) for one in logits]
        entropy = rng.uniform(0, 5, size=(VARIETY, shape.tokens)).astype("<f4")
        self._entropy = [one.tobytes() for one in entropy]
        self._epoch = int(time.time() * 1e6)
        self._written = 0

    def write(self, speakers: Iterator[tuple[int, int]]) -> float:
        """Write one event per (session, sequence number); returns MB of values."""
        topic = self._settings.topics.logits
        producer = Producer(
            self._settings.kafka.client_config()
            | {
                "linger.ms": 20,
                "compression.type": "lz4",
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
            }
        )
        size = 0
        for session, sequence in speakers:
            value = self._encode(self._event(session, sequence))
            size += len(value)
            while True:
                try:
                    producer.produce(topic, value, f"session-{session}".encode())
                    break
                except BufferError:
                    producer.poll(0.05)
        if producer.flush(60):
            raise SystemExit("the broker did not take the events of the benchmark")
        return size / 1e6

    def _event(self, session: int, sequence: int) -> dict[str, Any]:
        index, shape = self._written, self._shape
        self._written += 1
        return {
            "session_id": f"session-{session}",
            "request_id": "request-0",
            "model": "bench",
            "model_revision": "0",
            "backend": "synthetic",
            "worker_id": "bench",
            "producer_epoch": self._epoch,
            "sequence": sequence,
            "event_time_us": self._epoch + index,
            "phase": "decode",
            "position_start": sequence * shape.tokens,
            "steps": shape.tokens,
            "layers": list(range(shape.layers)),
            "experts": shape.experts,
            "top_k": 2,
            "encoding": shape.encoding,
            "top_m": shape.top_m,
            "logits": self._logits[index % VARIETY],
            "token_entropy": self._entropy[index % VARIETY],
            "vocabulary_size": 50_000,
        }
