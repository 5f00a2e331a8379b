"""Builds the Telemetry and Weights records of one accepted chunk.

Ids are deterministic: the source's topic id, partition and offset. Whatever is not known is null or
NaN, and the provenance fields say which family was measured, derived or only approximated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from routekeel.operators.columns import AMBIGUITY_BITS, CHUNK, LAYER, ROW
from routekeel.operators.contract import BatchOutput
from routekeel.operators.lipschitz import probe_metrics
from routekeel.schemas.records.telemetry import LAYER_FIELDS
from routekeel.streams.topology.cadence import ROUTE_AND_STATE
from routekeel.streams.topology.config import TopologyConfig
from routekeel.streams.topology.execute import Plan
from routekeel.streams.topology.record_block import Output
from routekeel.streams.topology.records import Source
from routekeel.streams.topology.sizes import telemetry_bytes

Encode = Callable[[Mapping[str, Any]], bytes]

# Telemetry's names for the kernel's columns, where they differ.
RENAMED = {
    "lam": "lambda",
    "load_max_over_mean": "load_max_over_mean_base",
    "load_cv": "load_cv_base",
}
PROBE_COLUMNS = ("g_probe", "l_perp", "l_para")
PASSED_THROUGH = (
    "session_id", "request_id", "model", "model_revision", "backend", "worker_id", "producer_epoch",
    "sequence", "event_time_us", "phase", "steps", "experts", "top_k", "router_kind", "dropped_before",
    "layers", "latency_us", "success", "judge_score", "task_type", "applied_policy_version",
)  # fmt: skip

_KERNEL_FIELDS = tuple(f.name for f in LAYER_FIELDS if f.name not in PROBE_COLUMNS)
_KERNEL_COLUMNS = np.array([LAYER[RENAMED.get(name, name)] for name in _KERNEL_FIELDS])
_TOKEN_COLUMNS = {
    "beta": "beta",
    "lam": "lambda",
    "route_entropy": "route_entropy",
    "g_base": "g_base",
    "g_controlled": "g_controlled",
    "margin": "margin",
}
_TOKEN_FLAGS = {
    "applied": "applied",
    "flip_base": "winner_flip_base",
    "flip_controlled": "winner_flip_controlled",
}


class OutputBuilder:
    """Encodes outputs with the two framed encoders it is given.

    Rows per token that would make a record larger than a topic takes are left out, and
    `token_rows_left_out` is called.
    """

    def __init__(
        self,
        config: TopologyConfig,
        encode_telemetry: Encode,
        encode_weights: Encode,
        token_rows_left_out: Callable[[], object] = lambda: None,
    ) -> None:
        self._config = config
        self._encode_telemetry = encode_telemetry
        self._encode_weights = encode_weights
        self._token_rows_left_out = token_rows_left_out

    def build(self, source: Source, plan: Plan) -> Output:
        """The outputs of one plan that `execute` has filled."""
        telemetry = self._encode_telemetry(self._telemetry(source, plan))
        weights = self._encode_weights(self._weights(source, plan)) if plan.publishes else None
        return Output(plan.record.offset, plan.chunk.session_id, telemetry, weights)

    def _telemetry(self, source: Source, plan: Plan) -> dict[str, Any]:
        chunk, admission, output = plan.chunk, plan.admission, plan.output
        assert output is not None, "execute() runs before the outputs are built"
        fields = chunk.fields
        record: dict[str, Any] = {name: fields[name] for name in PASSED_THROUGH}
        record["source_topic"], record["source_topic_id"], record["source_partition"] = source
        record["source_offset"] = plan.record.offset
        record["position"] = chunk.position_start
        record["policy_version"] = self._config.policy_version
        record["policy_arm"] = self._config.policy_arm
        record["tokens_applied"] = admission.tokens_applied
        record["rows_repeated"] = admission.rows_repeated
        record["positions_missing"] = admission.positions_missing
        record["sequences_missing"] = admission.sequences_missing
        record["state_reset"] = plan.state_reset
        _add_ambiguity(record, output, plan.index)
        layers = len(chunk.layers)
        columns = np.ascontiguousarray(
            output.layer[plan.refs][:, _KERNEL_COLUMNS].T, dtype="<f4"
        ).tobytes()
        width = 4 * layers
        for index, name in enumerate(_KERNEL_FIELDS):
            record[name] = columns[index * width : (index + 1) * width]
        _add_probe(record, plan)
        _add_flip_distance(record, plan)
        record["load"] = output.load_base[plan.refs].astype("<u2").tobytes()
        record["load_controlled"] = output.load_controlled[plan.refs].astype("<u2").tobytes()
        _add_provenance(record, plan)
        record["token_rows"] = self._detail(plan, output) if plan.detail else None
        return record

    def _detail(self, plan: Plan, output: BatchOutput) -> dict[str, Any] | None:
        chunk = plan.chunk
        size = telemetry_bytes(chunk.steps, len(chunk.layers), chunk.experts, token_rows=True)
        if size > self._config.record_bytes_max:
            self._token_rows_left_out()
            return None
        return _token_rows(plan, output)

    def _weights(self, source: Source, plan: Plan) -> dict[str, Any]:
        chunk, output = plan.chunk, plan.output
        assert output is not None
        fields = chunk.fields
        rows, route = output.layer[plan.refs], output.route[plan.refs]
        half = self._config.cadence.precision == "F16"
        return {
            "source_topic": source.topic,
            "source_topic_id": source.topic_id,
            "source_partition": source.partition,
            "source_offset": plan.record.offset,
            "session_id": fields["session_id"],
            "request_id": fields["request_id"],
            "model": fields["model"],
            "model_revision": fields["model_revision"],
            "event_time_us": chunk.event_time_us,
            "policy_version": self._config.policy_version,
            "policy_arm": self._config.policy_arm,
            "position": chunk.position_start + chunk.steps - 1,
            "layers": fields["layers"],
            "experts": chunk.experts,
            "w_hat": b"" if half else route.astype("<f4", copy=False).tobytes(),
            "w_hat_half": route.astype("<f2").tobytes() if half else None,
            "beta": rows[:, LAYER["beta_last"]].astype("<f4").tobytes(),
            "lam": rows[:, LAYER["lambda_last"]].astype("<f4").tobytes(),
            "state": plan.state if plan.publishes == ROUTE_AND_STATE else b"",
        }


def _add_ambiguity(record: dict[str, Any], output: BatchOutput, index: int) -> None:
    row = output.chunk[index].tolist()
    record["ambiguity_mask"] = int(output.ambiguity_mask[index])
    record["a_star"] = a_star = _null(row[CHUNK["a_star"]])
    record["a_exogenous"] = _null(row[CHUNK["a_exogenous"]])
    record["clarity"] = None if a_star is None else 1.0 - a_star
    for component in AMBIGUITY_BITS:
        record[f"ambiguity_{component}"] = _null(row[CHUNK[component]])


def _add_probe(record: dict[str, Any], plan: Plan) -> None:
    probe = plan.chunk.fields["probe"]
    record["probe_epsilon"] = record["probe_basis_id"] = record["probe_directions"] = None
    layers = plan.chunk.layers
    columns = dict.fromkeys(PROBE_COLUMNS, np.full(len(layers), np.nan, "<f4").tobytes())
    if probe is not None:
        values = np.full((len(PROBE_COLUMNS), len(layers)), np.nan, "<f4")
        for row, layer in enumerate(probe["layers"]):
            if layer in layers:
                values[:, layers.index(layer)] = _probed(probe, row)
        columns = {name: values[row].tobytes() for row, name in enumerate(PROBE_COLUMNS)}
        record["probe_epsilon"], record["probe_basis_id"] = probe["epsilon"], probe["basis_id"]
        record["probe_directions"] = probe["directions"]
    record.update(columns)


def _probed(probe: Mapping[str, Any], row: int) -> tuple[float, ...]:
    """The probe's metrics at its row-th layer, in the order of PROBE_COLUMNS."""
    directions = probe["directions"]
    span = slice(row * directions, (row + 1) * directions)
    dx, dy, dw = (
        np.frombuffer(probe[name], "<f4")[span] for name in ("dx_norm", "dy_norm", "dw_norm")
    )
    drift = [
        math.nan if probe[name] is None else float(np.frombuffer(probe[name], "<f4")[row])
        for name in ("drift_dx_norm", "drift_dy_norm")
    ]
    metrics = probe_metrics(dx, dy, dw, *drift)
    return tuple(float(getattr(metrics, name)) for name in PROBE_COLUMNS)


def _add_flip_distance(record: dict[str, Any], plan: Plan) -> None:
    """A flip distance that the worker measured takes precedence over the one derived here."""
    measured = plan.chunk.fields["flip_distance"]
    if measured is None:
        return
    values = np.frombuffer(measured, "<f4").reshape(plan.chunk.steps, len(plan.chunk.layers))
    apply = plan.admission.apply
    seen = values if apply is None else np.where(apply != 0, values, np.nan)
    columns = np.where(
        np.isnan(seen).all(axis=0),
        np.nan,
        np.nanmin(np.where(np.isnan(seen), np.inf, seen), axis=0),
    )
    record["flip_distance_min"] = columns.astype("<f4").tobytes()


def _add_provenance(record: dict[str, Any], plan: Plan) -> None:
    fields, mask = plan.chunk.fields, record["ambiguity_mask"]
    # Outside softmax routers, and with a truncated tail, the algebra holds only approximately.
    exact = fields["router_kind"] == "softmax" and fields["encoding"] != "TOPM_F16"
    derived = "derived" if exact else "proxy"
    from_entropy = mask == AMBIGUITY_BITS["predictive"] and fields["ambiguity_predictive"] is None
    record["provenance_ambiguity"] = (
        "unavailable" if not mask else "measured" if from_entropy else "proxy"
    )
    record["provenance_route"] = record["provenance_sensitivity"] = derived
    record["provenance_hidden"] = derived if plan.has_router_gram else "unavailable"
    record["provenance_flip_distance"] = (
        "measured"
        if fields["flip_distance"] is not None
        else derived
        if plan.has_router_gram
        else "unavailable"
    )
    record["provenance_probe"] = "unavailable" if fields["probe"] is None else "measured"
    record["provenance_latency"] = "unavailable" if fields["latency_us"] is None else "measured"
    judged = fields["success"] is not None or fields["judge_score"] is not None
    record["provenance_quality"] = "measured" if judged else "unavailable"


def _token_rows(plan: Plan, output: BatchOutput) -> dict[str, Any]:
    chunk = plan.chunk
    steps, layers = chunk.steps, len(chunk.layers)
    start = plan.detail_start
    span = slice(start, start + chunk.rows)
    rows = output.rows[span]
    token_rows: dict[str, Any] = {
        "steps": steps,
        "token_ids": chunk.fields["token_ids"],
        "a_star": _bytes(rows[:, ROW["a_star"]].reshape(steps, layers)[:, 0], "<f4"),
        "w_base": _bytes(output.row_w_base[span], "<f2"),
        "w_hat": _bytes(output.row_w_hat[span], "<f2"),
    }
    for name, column in _TOKEN_COLUMNS.items():
        token_rows[name] = _bytes(rows[:, ROW[column]], "<f4")
    for name, column in _TOKEN_FLAGS.items():
        token_rows[name] = _bytes(np.nan_to_num(rows[:, ROW[column]]), "|u1")
    return token_rows


def _bytes(values: npt.NDArray[np.float32], dtype: str) -> bytes:
    return np.ascontiguousarray(values).astype(dtype).tobytes()


def _null(value: float) -> float | None:
    return None if value != value else value
