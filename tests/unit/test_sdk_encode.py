"""The hand-written record writer: byte-equal to fastavro for every combination of fields."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from routekeel.schemas.codec import Encoder
from routekeel.schemas.records import ROUTER_LOGITS
from routekeel.schemas.records.router_logits import ENCODING, PHASE
from routekeel.streams.sdk.encode import PHASES, Times, head, layout, long, tail

INT = st.integers(-(2**31), 2**31 - 1)
LONG = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
BYTES = st.binary(max_size=300)
FLOAT32 = st.floats(width=32, allow_nan=False)
HEAD = ("session_id", "request_id", "model", "model_revision", "backend", "worker_id")
PROBE = st.fixed_dictionaries(
    {
        "step": INT,
        "layers": st.lists(INT, max_size=70),
        "epsilon": FLOAT32,
        "basis_id": TEXT,
        "directions": INT,
        "dx_norm": BYTES,
        "dw_norm": BYTES,
        "dy_norm": BYTES,
        "drift_dx_norm": st.none() | BYTES,
        "drift_dy_norm": st.none() | BYTES,
    }
)
OPTIONAL = {
    "token_ids": BYTES,
    "token_entropy": BYTES,
    "vocabulary_size": INT,
    "ambiguity_predictive": BYTES,
    "ambiguity_paraphrase": BYTES,
    "ambiguity_specification": BYTES,
    "probe": PROBE,
    "flip_distance": BYTES,
    "latency_us": LONG,
    "success": st.booleans(),
    "judge_score": st.floats(allow_nan=False),
    "task_type": TEXT,
    "applied_policy_version": LONG,
}
RECORDS = st.fixed_dictionaries(
    {
        **dict.fromkeys(HEAD, TEXT),
        "producer_epoch": LONG,
        "sequence": LONG,
        "event_time_us": LONG | st.integers(10**15, 2 * 10**15),
        "phase": st.sampled_from(PHASE.symbols),
        "position_start": LONG,
        "steps": INT,
        "layers": st.lists(INT, max_size=200),
        **{f"rank_{name}": INT for name in ("data", "tensor", "pipeline", "expert")},
        "experts": INT,
        "top_k": INT,
        "router_kind": TEXT,
        "encoding": st.sampled_from(ENCODING.symbols),
        "top_m": INT,
        "logits": st.binary(max_size=2000),
        **{name: st.none() | strategy for name, strategy in OPTIONAL.items()},
        "dropped_before": LONG,
    }
)


def written(record: dict[str, Any], schema_id: int) -> bytes:
    """The record, written as the producer writes it."""
    ranks = [record[f"rank_{name}"] for name in ("data", "tensor", "pipeline", "expert")]
    return b"".join(
        (
            head(schema_id, *(record[name] for name in HEAD), record["producer_epoch"]),
            long(record["sequence"]),
            Times().encode(record["event_time_us"]),
            PHASES[record["phase"]],
            long(record["position_start"]),
            layout(
                (record["steps"], len(record["layers"]), record["experts"]),
                record["layers"],
                ranks,
                record["top_k"],
                record["router_kind"],
                record["encoding"],
                record["top_m"],
                len(record["logits"]),
            ),
            record["logits"],
            tail(record),
            long(record["dropped_before"]),
        )
    )


@given(RECORDS, st.integers(0, 2**31 - 1))
@settings(max_examples=300, deadline=None)
def test_bytes_equal_fastavros(record: dict[str, Any], schema_id: int) -> None:
    assert written(record, schema_id) == Encoder(ROUTER_LOGITS, schema_id).encode(record)


def test_every_field_of_the_record_is_covered() -> None:
    covered = {
        *HEAD,
        *OPTIONAL,
        *("producer_epoch", "sequence", "event_time_us", "phase", "position_start", "steps"),
        *("layers", "rank_data", "rank_tensor", "rank_pipeline", "rank_expert", "experts"),
        *("top_k", "router_kind", "encoding", "top_m", "logits", "dropped_before"),
    }
    assert covered == {field.name for field in ROUTER_LOGITS}


@given(st.lists(LONG | st.integers(10**15, 10**15 + 2**30), max_size=20))
def test_times_are_longs_whatever_came_before(values: list[int]) -> None:
    times = Times()
    assert [times.encode(value) for value in values] == [long(value) for value in values]


def test_small_numbers_are_read_from_a_table_without_a_seam() -> None:
    lengths = [len(long(value)) for value in range(8180, 8200)]
    assert lengths == sorted(lengths)
    assert long(8191) == bytes([0xFE, 0x7F])
    assert long(8192) == bytes([0x80, 0x80, 0x01])
    assert long(int(np.int64(5))) == long(5)
