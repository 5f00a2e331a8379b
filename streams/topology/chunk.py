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

from routekeel.operators.state import state_width
from routekeel.streams.topology.records import Refusal, SourceRecord

SESSION_ID_BYTES_MAX = 512
# The other names are part of a session's state, several of each; its head has 16 bits for a length.
NAME_BYTES_MAX = 1024
NAMES = ("request_id", "model", "model_revision", "worker_id")
STEPS_MAX = 4096
EXPERTS_MAX = 4096
LAYERS_MAX = 1024
LAYER_ID_MAX = 4095
# A session has every layer that any of its chunks had, and its state must fit into a record of the
# changelog (16 MiB): with the ids bounded by what fits, no sequence of chunks can outgrow it.
STATE_BYTES_MAX = 12 * 2**20
# ClickHouse's DateTime64 and people's patience both end somewhere: a time outside is a broken clock.
EVENT_TIME_US_MIN = 946_684_800_000_000  # 2000-01-01
EVENT_TIME_US_MAX = 7_258_118_400_000_000  # 2200-01-01

AMBIGUITY_FIELDS = ("ambiguity_predictive", "ambiguity_paraphrase", "ambiguity_specification")

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
    """Check a decoded record. Raises Refusal with the reason."""
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
    if not 1 <= steps <= STEPS_MAX:
        raise Refusal("bad_shape", f"steps is {steps}, it must be in 1…{STEPS_MAX}")
    if not 1 <= experts <= EXPERTS_MAX:
        raise Refusal("bad_shape", f"experts is {experts}, it must be in 1…{EXPERTS_MAX}")
    if not 1 <= len(layers) <= LAYERS_MAX or any(a >= b for a, b in pairwise(layers)):
        raise Refusal(
            "bad_layers",
            f"layers must be 1…{LAYERS_MAX} ascending ids without repeats, got {layers[:8]}",
        )
    if layers[0] < 0 or layers[-1] > LAYER_ID_MAX:
        raise Refusal("bad_layers", f"layer ids must be in 0…{LAYER_ID_MAX}, got {layers[:8]}")
    if 4 * (layers[-1] + 1) * state_width(experts) > STATE_BYTES_MAX:
        raise Refusal(
            "state_too_large",
            f"the state of layers up to {layers[-1]} with {experts} experts takes more than "
            f"{STATE_BYTES_MAX} bytes",
        )
    if not 1 <= fields["top_k"] <= experts:
        raise Refusal("bad_top_k", f"top_k is {fields['top_k']} with {experts} experts")
    if fields["position_start"] < 0 or fields["sequence"] < 0:
        raise Refusal("negative_position", "position_start and sequence must not be negative")
    if not EVENT_TIME_US_MIN <= fields["event_time_us"] <= EVENT_TIME_US_MAX:
        raise Refusal(
            "implausible_event_time", f"event_time_us {fields['event_time_us']} is not in 2000…2200"
        )
    _check_logits(fields, steps, len(layers), experts)
    _check_optional(fields, steps, len(layers))
    request_id, model = fields["request_id"].encode(), fields["model"].encode()
    model_revision, worker_id = fields["model_revision"].encode(), fields["worker_id"].encode()
    if max(len(request_id), len(model), len(model_revision), len(worker_id)) > NAME_BYTES_MAX:
        name = next(name for name in NAMES if len(fields[name].encode()) > NAME_BYTES_MAX)
        raise Refusal("name_too_long", f"{name} has more than {NAME_BYTES_MAX} bytes")
    return LogitsChunk(
        session,
        request_id,
        model,
        model_revision,
        worker_id,
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
    probe = fields["probe"]
    if probe is not None:
        cells = 4 * len(probe["layers"]) * probe["directions"]
        if any(len(probe[name]) != cells for name in ("dx_norm", "dw_norm", "dy_norm")):
            raise Refusal("bad_length", f"the probe's norms must have {cells} bytes each")
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
