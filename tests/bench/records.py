"""What the peers share: the same decoding and the same outputs, by hand, with fastavro.

No repeats, gaps, evictions, dead letters, checkpoints or recovery: what an engineer writes who needs
the numbers today. What is the same for every event is made once, what a batch allows to do at once
is done at once. Its cost is the yardstick.
"""

from __future__ import annotations

import math
from io import BytesIO
from operator import itemgetter
from typing import Any

import fastavro
import numpy as np

from routekeel.operators.columns import CHUNK, LAYER
from routekeel.operators.contract import BatchOutput
from routekeel.operators.state import initial_rows
from routekeel.schemas.avro import reader_schema
from routekeel.schemas.codec import header
from routekeel.schemas.records import ROUTER_LOGITS, TELEMETRY, WEIGHTS
from routekeel.schemas.records.telemetry import LAYER_FIELDS, PROVENANCE_FAMILIES
from routekeel.schemas.registry import SchemaIds, subject_of
from routekeel.streams.settings import Settings

from .cadence import Every

# Telemetry's names for the kernel's columns where they differ, and those the kernel does not have.
RENAMED = {
    "lam": "lambda",
    "load_max_over_mean": "load_max_over_mean_base",
    "load_cv": "load_cv_base",
}
PROBE_COLUMNS = ("g_probe", "l_perp", "l_para")
COPIED = (
    "session_id", "request_id", "model", "model_revision", "backend", "worker_id", "producer_epoch", "sequence",
    "event_time_us", "phase", "steps", "experts", "top_k", "router_kind", "dropped_before", "layers",
    "latency_us", "success", "judge_score", "task_type", "applied_policy_version",
)  # fmt: skip
FIXED = {
    "source_topic": "bench", "source_topic_id": "bench",
    "policy_version": 0, "policy_arm": "shadow", "rows_repeated": 0, "positions_missing": 0, "sequences_missing": 0,
    "state_reset": "", "ambiguity_paraphrase": None, "ambiguity_specification": None, "probe_epsilon": None,
    "probe_basis_id": None, "probe_directions": None, "token_rows": None,
    **{f"provenance_{family}": "derived" for family, _ in PROVENANCE_FAMILIES},
}  # fmt: skip
WEIGHTS_COPIED = (
    "session_id", "request_id", "model", "model_revision", "event_time_us", "layers", "experts",
)  # fmt: skip
WEIGHTS_FIXED = {
    "source_topic": "bench", "source_topic_id": "bench", "policy_version": 0, "policy_arm": "shadow",
}  # fmt: skip

Event = dict[str, Any]


class HandWritten:
    """Decodes events and encodes their outputs; the kernel's call is the contender's own."""

    def __init__(self, settings: Settings) -> None:
        ids = SchemaIds(settings.registry.url)
        self.every = Every.of(settings)
        self.logits_schema = reader_schema(ROUTER_LOGITS)
        topics = settings.topics
        self.telemetry_header = header(ids.register(TELEMETRY, subject_of(topics.telemetry)))
        self.telemetry_schema = reader_schema(TELEMETRY)
        self.weights_header = header(ids.register(WEIGHTS, subject_of(topics.weights)))
        self.weights_schema = reader_schema(WEIGHTS)
        self.columns = [f.name for f in LAYER_FIELDS if f.name not in PROBE_COLUMNS]
        self.index = np.array([LAYER[RENAMED.get(name, name)] for name in self.columns])
        self._copied = itemgetter(*COPIED)
        self._weights_copied = itemgetter(*WEIGHTS_COPIED)

    def decode(self, value: bytes) -> Event:
        """The event in a message's value."""
        buffer = BytesIO(value)
        buffer.seek(5)  # past the framing: magic byte and schema id
        return fastavro.schemaless_reader(buffer, self.logits_schema, None)  # type: ignore[return-value]

    def fresh(self, event: Event) -> Any:
        """The state of a session before its first event: float32[L, 2E + 6]."""
        return initial_rows(len(event["layers"]), event["experts"])

    def inputs(self, events: list[Event]) -> tuple[Any, Any]:
        """(logits float32[rows, E], ambiguity float32[tokens, 3]) of events of one shape."""
        one = events[0]
        experts = one["experts"]
        data = b"".join([event["logits"] for event in events])
        if one["encoding"] == "F16":
            logits = np.frombuffer(data, "<f2").astype(np.float32).reshape(-1, experts)
        else:
            logits = dense(data, experts, one["top_m"])
        entropy = np.frombuffer(b"".join([event["token_entropy"] for event in events]), "<f4")
        ambiguity = np.full((len(entropy), 3), np.nan, np.float32)
        scale = np.float32(1 / math.log(one["vocabulary_size"]))
        ambiguity[:, 0] = np.minimum(np.maximum(entropy * scale, 0), 1)
        return logits, ambiguity

    def outputs(self, output: BatchOutput, layers: int) -> Outputs:
        """The kernel's output for chunks of `layers` layers each, ready to be cut into records."""
        return Outputs(self, output, layers)

    def encode_telemetry(self, event: Event, partition: int, offset: int, made: Event) -> bytes:
        """The framed Telemetry of an event; `made` is what the kernel found."""
        record = FIXED | dict(zip(COPIED, self._copied(event), strict=True)) | made
        record["source_partition"], record["source_offset"] = partition, offset
        record["position"], record["tokens_applied"] = event["position_start"], event["steps"]
        return encode(self.telemetry_schema, self.telemetry_header, record)

    def encode_weights(self, event: Event, partition: int, offset: int, made: Event) -> bytes:
        """The framed Weights of an event."""
        copied = dict(zip(WEIGHTS_COPIED, self._weights_copied(event), strict=True))
        record = WEIGHTS_FIXED | copied | made
        record["source_partition"], record["source_offset"] = partition, offset
        record["position"] = event["position_start"] + event["steps"] - 1
        return encode(self.weights_schema, self.weights_header, record)


class Outputs:
    """The outputs of one kernel call, whose chunks all have the same number of layers."""

    def __init__(self, work: HandWritten, output: BatchOutput, layers: int) -> None:
        self._work, self._output, self._layers = work, output, layers
        chunks = output.chunk.shape[0]
        # Column by column for each chunk, all chunks at once: the records then take slices.
        table = output.layer.reshape(chunks, layers, -1).transpose(0, 2, 1)
        self._columns = table.take(work.index, axis=1).tobytes()
        self._chunk = output.chunk.tolist()
        self._nothing = dict.fromkeys(PROBE_COLUMNS, np.full(layers, np.nan, "<f4").tobytes())

    def records(
        self, i: int, event: Event, partition: int, offset: int, first: bool
    ) -> tuple[bytes, bytes | None]:
        """Framed Telemetry of the i-th chunk, and Weights where they are due."""
        work, output, layers = self._work, self._output, self._layers
        span = slice(i * layers, (i + 1) * layers)
        width = 4 * layers
        start = i * width * len(work.columns)
        stop = start + width * len(work.columns)
        columns = self._columns
        made: Event = {
            name: columns[at : at + width]
            for name, at in zip(work.columns, range(start, stop, width), strict=True)
        }
        made |= self._nothing
        row = self._chunk[i]
        a_star = _null(row[CHUNK["a_star"]])
        made["ambiguity_mask"] = int(output.ambiguity_mask[i])
        made["a_star"], made["a_exogenous"] = a_star, _null(row[CHUNK["a_exogenous"]])
        made["clarity"] = None if a_star is None else 1 - a_star
        made["ambiguity_predictive"] = _null(row[CHUNK["predictive"]])
        made["ambiguity_routing"] = _null(row[CHUNK["routing"]])
        made["load"] = output.load_base[span].astype("<u2").tobytes()
        made["load_controlled"] = output.load_controlled[span].astype("<u2").tobytes()
        telemetry = work.encode_telemetry(event, partition, offset, made)
        weights_due, state_due = work.every.due(event["position_start"], event["steps"], first)
        if not weights_due:
            return telemetry, None
        weights = {
            "w_hat": output.route[span].tobytes(),
            "beta": output.layer[span, LAYER["beta_last"]].tobytes(),
            "lam": output.layer[span, LAYER["lambda_last"]].tobytes(),
            "state": output.state[span].tobytes() if state_due else b"",
        }
        return telemetry, work.encode_weights(event, partition, offset, weights)


def dense(data: bytes, experts: int, top_m: int) -> Any:
    """TOPM_F16 rows as float32[rows, E]: the rest's logsumexp spread evenly over the others."""
    dtype = np.dtype([("top", "<f2", (top_m,)), ("ids", "<u2", (top_m,)), ("rest", "<f4")])
    rows = np.frombuffer(data, dtype)
    flat = np.empty((len(rows), experts), np.float32)
    flat[:] = (rows["rest"] - np.float32(np.log(experts - top_m)))[:, None]
    flat[np.arange(len(rows))[:, None], rows["ids"]] = rows["top"]
    return flat


def encode(schema: Any, frame: bytes, record: dict[str, Any]) -> bytes:
    """A framed message by fastavro."""
    buffer = BytesIO()
    buffer.write(frame)
    fastavro.schemaless_writer(buffer, schema, record)
    return buffer.getvalue()


def _null(value: float) -> float | None:
    return None if value != value else value
