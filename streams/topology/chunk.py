"""A decoded RouterLogits record, checked: the form in which the topology works on it.

Every check that can be made on one record alone is here, so that a chunk that exists is a valid one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from routekeel.schemas.limits import (
    EVENT_TIME_US_MAX,
    EVENT_TIME_US_MIN,
    EXPERTS_MAX,
    LAYERS_MAX,
    POSITION_MAX,
    ROUTES_MAX,
    SEQUENCE_MAX,
    SESSION_ID_BYTES_MAX,
    STEPS_MAX,
    TEXT_BYTES_MAX,
    VALUES_MAX,
    text_bytes,
)
from routekeel.streams.topology.records import Refusal, SourceRecord

AMBIGUITY_FIELDS = ("ambiguity_predictive", "ambiguity_paraphrase", "ambiguity_specification")

TEXT_FIELDS = (
    "request_id", "model", "model_revision", "backend", "worker_id", "router_kind", "task_type",
)  # fmt: skip

F32 = npt.NDArray[np.float32]


@dataclass(slots=True)
class LogitsChunk:
    """One valid chunk. `fields` is the decoded record; the attributes are what every chunk needs.

    `layers` ascend. Ambiguity that the caller supplied is float32[T, 3] (predictive, paraphrase,
    specification; NaN where absent), else None; the predictive part made from token_entropy is that
    times `entropy_scale` (1/ln vocabulary; 0 where it is not to be used). Logits and entropies stay
    packed until the batch is assembled.
    """

    session_id: bytes
    request_id: bytes
    model: bytes
    model_revision: bytes
    worker_id: bytes
    producer_epoch: int
    sequence: int
    event_time_us: int
    position_start: int
    steps: int
    layers: tuple[int, ...]
    experts: int
    top_k: int
    ambiguity: F32 | None
    entropy_scale: float
    fields: Mapping[str, Any]

    @property
    def rows(self) -> int:
        """T·L, the number of (token, layer) rows."""
        return self.steps * len(self.layers)


def chunk_from(record: SourceRecord, fields: Mapping[str, Any]) -> LogitsChunk:
    """Check a decoded record. Raises Refusal with the reason, and nothing else.

    A record whose check fails in a way that nobody thought of is a bad record too: were the error to
    end the worker, the next one would read the same record again, for ever.
    """
    try:
        return _checked(record, fields)
    except Refusal:
        raise
    except Exception as error:
        raise Refusal("unexpected_error", f"{type(error).__name__}: {str(error)[:500]}") from error


def _checked(record: SourceRecord, fields: Mapping[str, Any]) -> LogitsChunk:
    session = fields["session_id"].encode()
    if not session:
        raise Refusal("empty_session_id", "session_id is empty")
    if len(session) > SESSION_ID_BYTES_MAX:
        raise Refusal(
            "session_id_too_long",
            f"session_id has {len(session)} bytes, at most {SESSION_ID_BYTES_MAX}",
        )
    if session[0] == 0:
        raise Refusal(
            "reserved_session_id", "session_id starts with a NUL character, which is reserved"
        )
    if record.key != session:
        raise Refusal(
            "key_mismatch", "the record's key is not its session_id, so its partition may be wrong"
        )
    steps, experts, layers = fields["steps"], fields["experts"], tuple(fields["layers"])
    _check_shape(steps, layers, experts)
    if not 1 <= fields["top_k"] <= experts:
        raise Refusal("bad_top_k", f"top_k is {fields['top_k']} with {experts} experts")
    _check_counts(fields)
    _check_texts(fields)
    if not EVENT_TIME_US_MIN <= fields["event_time_us"] <= EVENT_TIME_US_MAX:
        raise Refusal(
            "implausible_event_time", f"event_time_us {fields['event_time_us']} is not in 2000…2200"
        )
    _check_logits(fields, steps, len(layers), experts)
    _check_optional(fields, steps, len(layers))
    return LogitsChunk(
        session,
        fields["request_id"].encode(),
        fields["model"].encode(),
        fields["model_revision"].encode(),
        fields["worker_id"].encode(),
        fields["producer_epoch"],
        fields["sequence"],
        fields["event_time_us"],
        fields["position_start"],
        steps,
        layers,
        experts,
        fields["top_k"],
        _supplied_ambiguity(fields, steps),
        _entropy_scale(fields),
        fields,
    )


def _check_shape(steps: int, layers: tuple[int, ...], experts: int) -> None:
    if not 1 <= steps <= STEPS_MAX:
        raise Refusal("bad_shape", f"steps is {steps}, it must be in 1…{STEPS_MAX}")
    if not 1 <= experts <= EXPERTS_MAX:
        raise Refusal("bad_shape", f"experts is {experts}, it must be in 1…{EXPERTS_MAX}")
    if (
        not layers
        or layers[0] < 0
        or layers[-1] >= LAYERS_MAX
        or any(a >= b for a, b in pairwise(layers))
    ):
        raise Refusal(
            "bad_layers",
            f"layers must be ascending ids in 0…{LAYERS_MAX - 1} without repeats, got {layers[:8]}",
        )
    if (layers[-1] + 1) * experts > ROUTES_MAX:
        raise Refusal(
            "too_many_routes",
            f"layer {layers[-1]} with {experts} experts: (highest layer id + 1) · experts is at most "
            f"{ROUTES_MAX}",
        )
    if steps * len(layers) * experts > VALUES_MAX:
        raise Refusal(
            "too_many_values",
            f"{steps} tokens × {len(layers)} layers × {experts} experts are more than {VALUES_MAX}; "
            "send fewer tokens per chunk",
        )


def _check_counts(fields: Mapping[str, Any]) -> None:
    if fields["position_start"] < 0 or fields["sequence"] < 0:
        raise Refusal("negative_position", "position_start and sequence must not be negative")
    for name, most in (("position_start", POSITION_MAX), ("sequence", SEQUENCE_MAX)):
        if fields[name] > most:
            raise Refusal("position_too_large", f"{name} is {fields[name]}, at most {most}")
    if fields["dropped_before"] < 0:
        raise Refusal("negative_count", f"dropped_before is {fields['dropped_before']}")


def _check_texts(fields: Mapping[str, Any]) -> None:
    for name in TEXT_FIELDS:
        value = fields[name]
        if value is not None and text_bytes(value) > TEXT_BYTES_MAX:
            raise Refusal(
                "text_too_long", f"{name} has {text_bytes(value)} bytes, at most {TEXT_BYTES_MAX}"
            )


def _check_logits(fields: Mapping[str, Any], steps: int, layers: int, experts: int) -> None:
    encoding, top_m = fields["encoding"], fields["top_m"]
    if encoding == "F16":
        row_bytes = 2 * experts
    elif encoding == "F32":
        row_bytes = 4 * experts
    elif encoding != "TOPM_F16":
        raise Refusal(
            "unknown_encoding", "the logits have an encoding that this version does not know"
        )
    else:
        if not 1 <= top_m <= experts:
            raise Refusal("bad_top_m", f"top_m is {top_m} with {experts} experts")
        row_bytes = 4 * top_m + 4
    expected = steps * layers * row_bytes
    if len(fields["logits"]) != expected:
        raise Refusal(
            "bad_length",
            f"logits has {len(fields['logits'])} bytes; {steps} tokens × {layers} layers × {experts} experts "
            f"as {encoding} take {expected}",
        )


def _check_optional(fields: Mapping[str, Any], steps: int, layers: int) -> None:
    for name, expected in (
        ("token_ids", 4 * steps),
        ("token_entropy", 4 * steps),
        *((name, 4 * steps) for name in AMBIGUITY_FIELDS),
        ("flip_distance", 4 * steps * layers),
    ):
        value = fields[name]
        if value is not None and len(value) != expected:
            raise Refusal("bad_length", f"{name} has {len(value)} bytes, expected {expected}")
    if fields["probe"] is not None:
        _check_probe(fields["probe"], steps)


def _check_probe(probe: Mapping[str, Any], steps: int) -> None:
    layers, directions = len(probe["layers"]), probe["directions"]
    if layers > LAYERS_MAX or directions < 1:
        raise Refusal(
            "bad_probe",
            f"the probe has {layers} layers and {directions} directions; it must have at most "
            f"{LAYERS_MAX} and at least 1",
        )
    if text_bytes(probe["basis_id"]) > TEXT_BYTES_MAX:
        raise Refusal("text_too_long", f"the probe's basis_id has more than {TEXT_BYTES_MAX} bytes")
    cells = 4 * layers * directions
    if any(len(probe[name]) != cells for name in ("dx_norm", "dw_norm", "dy_norm")):
        raise Refusal("bad_length", f"the probe's norms must have {cells} bytes each")
    for name in ("drift_dx_norm", "drift_dy_norm"):
        if probe[name] is not None and len(probe[name]) != 4 * layers:
            raise Refusal(
                "bad_length",
                f"the probe's {name} has {len(probe[name])} bytes, expected {4 * layers}",
            )
    if not 0 <= probe["step"] < steps:
        raise Refusal("bad_probe", f"the probe's step {probe['step']} is outside the chunk")


def _entropy_scale(fields: Mapping[str, Any]) -> float:
    vocabulary = fields["vocabulary_size"]
    if fields["token_entropy"] is None or fields["ambiguity_predictive"] is not None:
        return 0.0
    return 1 / math.log(vocabulary) if vocabulary is not None and vocabulary > 1 else 0.0


def _supplied_ambiguity(fields: Mapping[str, Any], steps: int) -> F32 | None:
    columns = [fields[name] for name in AMBIGUITY_FIELDS]
    if columns == [None, None, None]:
        return None
    ambiguity = np.full((steps, 3), np.nan, np.float32)
    for index, column in enumerate(columns):
        if column is not None:
            values = np.frombuffer(column, "<f4")
            if not bool(((values >= 0) & (values <= 1) | np.isnan(values)).all()):
                raise Refusal(
                    "bad_ambiguity", f"{AMBIGUITY_FIELDS[index]} must be within 0…1 (NaN: unknown)"
                )
            ambiguity[:, index] = values
    return ambiguity
