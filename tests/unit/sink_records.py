"""Telemetry, Weights and DeadLetter fields for the tests of sink and history, valid and from a seed."""

from __future__ import annotations

from typing import Any

import numpy as np

from routekeel.schemas.kinds import Matrix
from routekeel.schemas.records.telemetry import LAYER_FIELDS, PROVENANCE_FAMILIES

START_MS = 1_790_000_000_000
WHOLE = {"tokens", "winner_flips_base", "winner_flips_controlled", "spikes", "held"}


def source(offset: int, partition: int = 0, topic_id: str = "logits-1") -> dict[str, Any]:
    """The four fields that say what a record was computed from."""
    return {
        "source_topic": "routekeel.logits",
        "source_topic_id": topic_id,
        "source_partition": partition,
        "source_offset": offset,
    }


def telemetry_fields(
    offset: int,
    *,
    partition: int = 0,
    topic_id: str = "logits-1",
    layers: int = 2,
    experts: int = 4,
    token_steps: int = 0,
    seed: int = 0,
    **changes: Any,
) -> dict[str, Any]:
    """A telemetry record; its numbers follow from (seed, partition, offset)."""
    rng = np.random.default_rng([seed, partition, offset])
    fields: dict[str, Any] = {
        **source(offset, partition, topic_id),
        "session_id": f"session-{partition}-{offset % 7}",
        "request_id": "request-1",
        "model": f"model-{offset % 2}",
        "model_revision": "r1",
        "backend": "synthetic",
        "worker_id": "worker-1",
        "producer_epoch": 1,
        "sequence": offset,
        "event_time_us": START_MS * 1000 + offset * 250_000,
        "phase": "decode",
        "position": offset * 4,
        "steps": 4,
        "experts": experts,
        "top_k": 2,
        "router_kind": "softmax",
        "policy_version": 0,
        "policy_arm": "shadow",
        "tokens_applied": 4,
        "rows_repeated": 0,
        "positions_missing": 0,
        "sequences_missing": 0,
        "state_reset": "",
        "dropped_before": 0,
        "ambiguity_mask": 1,
        "a_star": float(np.float32(rng.uniform())),
        "a_exogenous": None,
        "clarity": None,
        "ambiguity_predictive": None,
        "ambiguity_paraphrase": None,
        "ambiguity_specification": None,
        "ambiguity_routing": None,
        "layers": list(range(layers)),
        "probe_epsilon": None,
        "probe_basis_id": None,
        "probe_directions": None,
        "latency_us": int(rng.integers(500, 5000)),
        "success": None,
        "judge_score": None,
        "task_type": None,
        "applied_policy_version": None,
        "token_rows": token_rows(rng, token_steps, layers, experts) if token_steps else None,
    }
    for field in LAYER_FIELDS:
        whole = rng.integers(0, 5, layers) if field.name in WHOLE else rng.uniform(0, 1, layers)
        fields[field.name] = whole.astype("<f4").tobytes()
    fields["tokens"] = np.full(layers, 4, "<f4").tobytes()
    for name in ("load", "load_controlled"):
        fields[name] = rng.integers(0, 9, (layers, experts)).astype("<u2").tobytes()
    for family, _ in PROVENANCE_FAMILIES:
        fields[f"provenance_{family}"] = "derived"
    return fields | changes


def token_rows(rng: np.random.Generator, steps: int, layers: int, experts: int) -> dict[str, Any]:
    """Per-token rows of those shapes."""
    from routekeel.schemas.records.telemetry import TOKEN_FIELDS

    sizes = {"steps": steps, "layers": layers, "experts": experts}
    out: dict[str, Any] = {"steps": steps}
    for field in TOKEN_FIELDS:
        if isinstance(field.kind, Matrix):
            shape = [sizes[axis] for axis in field.kind.dims]
            out[field.name] = rng.integers(0, 2, shape).astype(field.kind.dtype).tobytes()
    return out


def weights_fields(
    offset: int,
    *,
    partition: int = 0,
    topic_id: str = "logits-1",
    layers: int = 2,
    experts: int = 4,
    seed: int = 0,
    **changes: Any,
) -> dict[str, Any]:
    """A weights record."""
    rng = np.random.default_rng([seed, partition, offset, 1])
    fields: dict[str, Any] = {
        **source(offset, partition, topic_id),
        "session_id": f"session-{partition}-{offset % 7}",
        "request_id": "request-1",
        "model": f"model-{offset % 2}",
        "model_revision": "r1",
        "event_time_us": START_MS * 1000 + offset * 250_000,
        "policy_version": 0,
        "policy_arm": "shadow",
        "position": offset * 4 + 3,
        "layers": list(range(layers)),
        "experts": experts,
        "w_hat": rng.dirichlet(np.ones(experts), layers).astype("<f4").tobytes(),
        "beta": np.ones(layers, "<f4").tobytes(),
        "lam": np.ones(layers, "<f4").tobytes(),
        "state": rng.bytes(40),
    }
    return fields | changes


def letter_fields(offset: int, *, partition: int = 0, topic_id: str = "logits-1") -> dict[str, Any]:
    """A dead letter about a record of the logits topic."""
    return {
        **source(offset, partition, topic_id),
        "record_time_us": START_MS * 1000,
        "stage": "worker",
        "error_class": "bad_body" if offset % 2 else "unknown_schema_id",
        "error_message": "what is wrong",
        "key": b"session",
        "value": b"\x00\x01\xff",
        "header_names": ["trace"],
        "header_values": [b"\x01"],
        "value_bytes": 3,
    }
