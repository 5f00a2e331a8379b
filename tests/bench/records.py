"""What the two peers share: the same decoding, the same kernel and the same outputs, by hand.

No repeats, gaps, evictions, dead letters, checkpoints or recovery: what an engineer writes who needs
the numbers today. Its cost is the yardstick.
"""

from __future__ import annotations

import math
from io import BytesIO
from typing import Any

import fastavro
import numpy as np

from routekeel.operators.config import DEFAULT
from routekeel.operators.contract import BatchOutput, Chunk, ChunkBatch
from routekeel.operators.state import RouterState, initial_rows
from routekeel.operators.step import step, step_many
from routekeel.schemas.avro import reader_schema
from routekeel.schemas.codec import header
from routekeel.schemas.records import ROUTER_LOGITS, TELEMETRY, WEIGHTS
from routekeel.schemas.records.telemetry import LAYER_FIELDS, PROVENANCE_FAMILIES
from routekeel.schemas.registry import SchemaIds, subject_of
from routekeel.streams.settings import Settings
from routekeel.streams.topology.outputs import PROBE_COLUMNS, RENAMED

COPIED = (
    "session_id", "request_id", "model", "model_revision", "backend", "worker_id", "producer_epoch", "sequence",
    "event_time_us", "phase", "steps", "experts", "top_k", "router_kind", "dropped_before", "layers",
    "latency_us", "success", "judge_score", "task_type", "applied_policy_version",
)  # fmt: skip
FIXED = {
    "policy_version": 0, "policy_arm": "shadow", "rows_repeated": 0, "positions_missing": 0, "sequences_missing": 0,
    "state_reset": "", "ambiguity_paraphrase": None, "ambiguity_specification": None, "probe_epsilon": None,
    "probe_basis_id": None, "probe_directions": None, "token_rows": None,
    **{f"provenance_{family}": "derived" for family, _ in PROVENANCE_FAMILIES},
}  # fmt: skip


def encode(schema: Any, frame: bytes, record: dict[str, Any]) -> bytes:
    """A framed message by fastavro."""
    buffer = BytesIO()
    buffer.write(frame)
    fastavro.schemaless_writer(buffer, schema, record)
    return buffer.getvalue()


class HandWritten:
    """Decode, step, encode: many events at once or one at a time."""

    def __init__(self, settings: Settings) -> None:
        from routekeel.operators.columns import CHUNK, LAYER

        ids = SchemaIds(settings.registry.url)
        self.logits_schema = reader_schema(ROUTER_LOGITS)
        self.telemetry_header = header(
            ids.register(TELEMETRY, subject_of(settings.topics.telemetry))
        )
        self.telemetry_schema = reader_schema(TELEMETRY)
        self.weights_header = header(ids.register(WEIGHTS, subject_of(settings.topics.weights)))
        self.weights_schema = reader_schema(WEIGHTS)
        self.columns = [f.name for f in LAYER_FIELDS if f.name not in PROBE_COLUMNS]
        self.index = [LAYER[RENAMED.get(name, name)] for name in self.columns]
        self.beta, self.lam = LAYER["beta_last"], LAYER["lambda_last"]
        self.chunk = CHUNK
        # The kernel is loaded before anything is timed, as this app does it at its start.
        step(DEFAULT, RouterState.initial(1, 2), Chunk(np.zeros((1, 1, 2), np.float32)))

    def step(
        self, events: list[dict[str, Any]], states: list[Any], first_slot: list[int]
    ) -> tuple[Any, BatchOutput, ChunkBatch]:
        """Run the kernel over events of one shape; `states` are the packed matrices of their sessions."""
        one = events[0]
        tokens, layers, experts = one["steps"], len(one["layers"]), one["experts"]
        logits = (
            np.frombuffer(b"".join(e["logits"] for e in events), "<f2")
            .astype(np.float32)
            .reshape(-1, experts)
        )
        ambiguity = np.full((len(events) * tokens, 3), np.nan, np.float32)
        entropy = np.frombuffer(b"".join(e["token_entropy"] for e in events), "<f4")
        ambiguity[:, 0] = np.clip(entropy / math.log(one["vocabulary_size"]), 0, 1)
        slots = (np.array(first_slot)[:, None] + np.arange(layers)).reshape(-1)
        batch = ChunkBatch.build(
            logits,
            [tokens] * len(events),
            [layers] * len(events),
            slots,
            top_k=one["top_k"],
            ambiguity=ambiguity,
        )
        arena = np.concatenate(states)
        _, output = step_many(DEFAULT, arena, batch, out=arena)
        return arena, output, batch

    def decode(self, value: bytes) -> dict[str, Any]:
        """The event in a message's value."""
        return fastavro.schemaless_reader(BytesIO(value[5:]), self.logits_schema, None)  # type: ignore[return-value]

    def fresh(self, event: dict[str, Any]) -> Any:
        """The state of a session before its first event."""
        return initial_rows(len(event["layers"]), event["experts"])

    def outputs(
        self,
        event: dict[str, Any],
        partition: int,
        offset: int,
        output: BatchOutput,
        i: int,
        at: int,
    ) -> tuple[bytes, bytes]:
        """Telemetry and Weights of event i, whose layers start at `at` in the output."""
        layers = len(event["layers"])
        span = slice(at, at + layers)
        rows = output.layer[span]
        row = [None if v != v else v for v in output.chunk[i].tolist()]
        source = {
            "source_topic": "bench",
            "source_topic_id": "bench",
            "source_partition": partition,
            "source_offset": offset,
        }
        record = {name: event[name] for name in COPIED} | FIXED | source
        record["position"], record["tokens_applied"] = event["position_start"], event["steps"]
        record["ambiguity_mask"] = int(output.ambiguity_mask[i])
        for name in ("a_star", "a_exogenous"):
            record[name] = row[self.chunk[name]]
        record["clarity"] = None if record["a_star"] is None else 1 - record["a_star"]
        record["ambiguity_predictive"] = row[self.chunk["predictive"]]
        record["ambiguity_routing"] = row[self.chunk["routing"]]
        columns = np.ascontiguousarray(rows[:, self.index].T).tobytes()
        for k, name in enumerate(self.columns):
            record[name] = columns[4 * layers * k : 4 * layers * (k + 1)]
        nothing = np.full(layers, np.nan, "<f4").tobytes()
        for name in PROBE_COLUMNS:
            record[name] = nothing
        record["load"] = output.load_base[span].tobytes()
        record["load_controlled"] = output.load_controlled[span].tobytes()
        weights = source | {
            name: event[name]
            for name in (
                "session_id",
                "request_id",
                "model",
                "model_revision",
                "event_time_us",
                "layers",
                "experts",
            )
        }
        weights |= {
            "policy_version": 0,
            "policy_arm": "shadow",
            "position": event["position_start"] + event["steps"] - 1,
            "w_hat": output.route[span].tobytes(),
            "beta": rows[:, self.beta].tobytes(),
            "lam": rows[:, self.lam].tobytes(),
            "state": output.state[span].tobytes(),
        }
        return (
            encode(self.telemetry_schema, self.telemetry_header, record),
            encode(self.weights_schema, self.weights_header, weights),
        )
