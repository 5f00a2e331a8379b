"""Makes RouterLogits fields for the topology tests, deterministically from a seed."""

from __future__ import annotations

from typing import Any

import numpy as np

START_US = 1_790_000_000_000_000


def chunk_fields(
    session: str, start: int, steps: int = 3, *, seed: int = 0, **changes: Any
) -> dict[str, Any]:
    """A valid chunk of `steps` tokens at `start`; the logits depend on seed, session and position only."""
    layers = list(changes.get("layers", [0, 1]))
    experts = int(changes.get("experts", 4))
    rows = [
        np.random.default_rng([seed, *session.encode(), position, layer]).normal(
            scale=2, size=experts
        )
        for position in range(start, start + steps)
        for layer in layers
    ]
    entropy = [
        float(np.random.default_rng([seed, position]).uniform(0, 5))
        for position in range(start, start + steps)
    ]
    fields: dict[str, Any] = {
        "session_id": session,
        "request_id": "request-1",
        "model": "model-a",
        "model_revision": "r1",
        "backend": "synthetic",
        "worker_id": "worker-1",
        "producer_epoch": 1,
        "sequence": start,
        "event_time_us": START_US + start * 1000,
        "phase": "decode",
        "position_start": start,
        "steps": steps,
        "layers": layers,
        "experts": experts,
        "top_k": 2,
        "encoding": "F16",
        "logits": np.array(rows, "<f2").tobytes(),
        "token_entropy": np.array(entropy, "<f4").tobytes(),
        "vocabulary_size": 256,
    }
    fields.update(changes)
    return fields
