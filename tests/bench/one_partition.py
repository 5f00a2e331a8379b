"""One partition in this process, with no broker: its records and a processor as the worker makes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from routekeel.schemas.codec import Decoder, Encoder
from routekeel.schemas.records import ROUTER_LOGITS, TELEMETRY, WEIGHTS
from routekeel.schemas.registry import FixedSchemaIds
from routekeel.streams.topology.changelog import MemoryStore
from routekeel.streams.topology.config import TopologyConfig
from routekeel.streams.topology.decoding import decode_or_refuse
from routekeel.streams.topology.outputs import OutputBuilder
from routekeel.streams.topology.partition import PartitionProcessor
from routekeel.streams.topology.records import Source, SourceRecord
from routekeel.streams.wire.path import CompiledPath, compiled_path

START_US = 1_790_000_000_000_000
VARIETY = 64


@dataclass(frozen=True)
class Soak:
    """So many chunks of T × L × E over a window of sessions; `churn` of a window is new each round."""

    sessions: int
    chunks: int
    tokens: int
    layers: int
    experts: int
    batch: int
    churn: float


class Feed:
    """RouterLogits records by (session, sequence); the same logits come back now and then."""

    def __init__(self, soak: Soak, ids: FixedSchemaIds) -> None:
        self._encode = Encoder(ROUTER_LOGITS, ids.register(ROUTER_LOGITS, "")).encode
        shape = (VARIETY, soak.tokens, soak.layers, soak.experts)
        logits = np.random.default_rng(1).normal(scale=2, size=shape).astype("<f2")
        self._logits = [one.tobytes() for one in logits]
        self._fields: dict[str, Any] = {
            "request_id": "request-1", "model": "bench-model", "model_revision": "r1",
            "backend": "synthetic", "worker_id": "worker-1", "producer_epoch": 1, "phase": "decode",
            "steps": soak.tokens, "layers": list(range(soak.layers)), "experts": soak.experts,
            "top_k": 2, "encoding": "F16", "vocabulary_size": 50_000,
        }  # fmt: skip
        self._tokens = soak.tokens

    def record(self, offset: int, session: int, sequence: int) -> SourceRecord:
        """The record at an offset; a microsecond passes from one to the next."""
        name = f"session-{session:012d}"
        at = START_US + offset
        value = self._encode(
            self._fields
            | {
                "session_id": name,
                "sequence": sequence,
                "event_time_us": at,
                "position_start": sequence * self._tokens,
                "logits": self._logits[offset % VARIETY],
            }
        )
        return SourceRecord(offset, at // 1000, name.encode(), value, ())


def sessions_of(soak: Soak) -> Iterator[tuple[int, int]]:
    """(session, sequence) without end: rounds over a window that moves on by `churn` each round."""
    moved = int(soak.sessions * soak.churn)
    number = 0
    while True:
        first = number * moved
        for session in range(first, first + soak.sessions):
            born = 0 if session < soak.sessions else (session - soak.sessions) // moved + 1
            yield session, number - born
        number += 1


class Parts:
    """What a worker makes a partition of."""

    def __init__(self, soak: Soak, ids: FixedSchemaIds) -> None:
        self._config = TopologyConfig(sessions_max=soak.sessions)
        self._source = Source("routekeel.logits", "log-1", 0)
        self._decoder = Decoder(ROUTER_LOGITS, ids)
        self._telemetry, self._weights = (
            Encoder(record, ids.register(record, "")) for record in (TELEMETRY, WEIGHTS)
        )
        self._logits_id = ids.register(ROUTER_LOGITS, "")

    def path(self) -> CompiledPath | None:
        """The compiled way through a batch."""
        return compiled_path(
            self._source, self._config, self._telemetry, self._weights, self._logits_id
        )

    def processor(self, store: MemoryStore) -> PartitionProcessor:
        """A real one."""
        builder = OutputBuilder(self._config, self._telemetry.encode, self._weights.encode)
        return PartitionProcessor(
            self._source, self._config, self._decode, builder, store, self.path()
        )

    def _decode(self, value: bytes) -> Mapping[str, Any]:
        return decode_or_refuse(self._decoder, value)
