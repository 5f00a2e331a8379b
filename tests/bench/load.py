"""The events every contender reads: written once to a topic of their own, the same for all."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from confluent_kafka import Producer

from routekeel.schemas.codec import Encoder
from routekeel.schemas.records import ROUTER_LOGITS
from routekeel.schemas.registry import SchemaIds, subject_of
from routekeel.streams.settings import Settings

VARIETY = 256


@dataclass(frozen=True)
class Shape:
    """T tokens × L layers × E experts per event."""

    tokens: int
    layers: int
    experts: int

    def __str__(self) -> str:
        return f"T={self.tokens} L={self.layers} E={self.experts}"


def write_events(settings: Settings, shape: Shape, events: int, sessions: int, seed: int) -> float:
    """Write the events to the logits topic; returns MB of values."""
    ids = SchemaIds(settings.registry.url)
    encoder = Encoder(
        ROUTER_LOGITS, ids.register(ROUTER_LOGITS, subject_of(settings.topics.logits))
    )
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=2, size=(VARIETY, shape.tokens, shape.layers, shape.experts)).astype(
        "<f2"
    )
    entropy = rng.uniform(0, 5, size=(VARIETY, shape.tokens)).astype("<f4")
    producer = Producer(
        settings.kafka.client_config()
        | {
            "linger.ms": 20,
            "compression.type": "lz4",
            "partitioner": "murmur2_random",
            "enable.idempotence": True,
        }
    )
    size, epoch = 0, int(time.time() * 1e6)
    for index in range(events):
        session, sequence = index % sessions, index // sessions
        value = encoder.encode(
            {
                "session_id": f"session-{session}",
                "request_id": "request-0",
                "model": "bench",
                "model_revision": "0",
                "backend": "synthetic",
                "worker_id": "bench",
                "producer_epoch": epoch,
                "sequence": sequence,
                "event_time_us": epoch + index,
                "phase": "decode",
                "position_start": sequence * shape.tokens,
                "steps": shape.tokens,
                "layers": list(range(shape.layers)),
                "experts": shape.experts,
                "top_k": 2,
                "encoding": "F16",
                "logits": logits[index % VARIETY].tobytes(),
                "token_entropy": entropy[index % VARIETY].tobytes(),
                "vocabulary_size": 50_000,
            }
        )
        size += len(value)
        while True:
            try:
                producer.produce(settings.topics.logits, value, f"session-{session}".encode())
                break
            except BufferError:
                producer.poll(0.05)
    producer.flush()
    return size / 1e6
