"""Whatever a caller passes: emit_logits returns False, names the argument and counts the chunk."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routekeel.streams.sdk.producer import Producer
from tests.unit.mock_broker import closed_port

LOGITS = np.ones((2, 3, 4), np.float16)
LONG = "é" * 513
NORMS = dict.fromkeys(("dx_norm", "dw_norm", "dy_norm"), np.ones((1, 2)))
PROBE = {"step": 0, "layers": [0], "epsilon": 0.1, "basis_id": "b", "directions": 2, **NORMS}


@pytest.fixture(scope="module")
def producer() -> Iterator[Producer]:
    with closed_port() as servers:
        made = Producer(
            bootstrap_servers=servers, model="m", backend="b", top_k=2, schema_id=1, worker_id="w"
        )
        yield made
        made.close(0)


BAD: list[tuple[str, Any, str]] = [
    ("session_id", "", "invalid_session"),
    ("session_id", None, "invalid_session"),
    ("session_id", 7, "invalid_session"),
    ("session_id", [], "invalid_session"),
    ("session_id", "\0a", "invalid_session"),
    ("session_id", "é" * 257, "invalid_session"),
    ("session_id", "\ud800", "invalid_session"),
    ("layers", [0, 1], "invalid_shape"),
    ("layers", [0, 2, 1], "invalid_shape"),
    ("layers", [0, 1, 1], "invalid_shape"),
    ("layers", 3, "invalid_shape"),
    ("layers", [[0], [1], [2]], "invalid_shape"),
    ("layers", [-1, 0, 1], "invalid_field"),
    ("layers", ["a", "b", "c"], "invalid_field"),
    ("layers", [0, 1, 1024], "invalid_field"),
    ("logits", np.zeros((1, 33, 4096), np.float16), "invalid_shape"),
    ("logits", np.broadcast_to(np.float16(0), (4096, 17, 128)), "invalid_shape"),
    ("top_k", 5, "invalid_field"),
    ("top_k", 0, "invalid_field"),
    ("top_k", [2], "invalid_field"),
    ("top_k", "2", "invalid_field"),
    ("router_kind", 3, "invalid_field"),
    ("position_start", -1, "invalid_field"),
    ("position_start", 2**63, "invalid_field"),
    ("position_start", 2**62 + 1, "invalid_field"),
    ("position_start", 1.5, "invalid_field"),
    ("position_start", None, "invalid_field"),
    ("phase", "warmup", "invalid_field"),
    ("phase", ["decode"], "invalid_field"),
    ("event_time_us", 5, "invalid_field"),
    ("event_time_us", "now", "invalid_field"),
    ("sequence", -1, "invalid_field"),
    ("sequence", "1", "invalid_field"),
    ("sequence", 2**62 + 1, "invalid_field"),
    ("producer_epoch", -1, "invalid_field"),
    ("request_id", 5, "invalid_field"),
    ("request_id", "\ud800", "invalid_field"),
    ("request_id", LONG, "invalid_field"),
    ("model", LONG, "invalid_field"),
    ("model_revision", LONG, "invalid_field"),
    ("backend", LONG, "invalid_field"),
    ("router_kind", LONG, "invalid_field"),
    ("task_type", LONG, "invalid_field"),
    ("model", "", "invalid_field"),
    ("backend", 3, "invalid_field"),
    ("token_ids", [1], "invalid_field"),
    ("token_ids", [1.5, 2.5], "invalid_field"),
    ("token_ids", [1, 2**31], "invalid_field"),
    ("token_ids", [[1], [2, 3]], "invalid_field"),
    ("token_entropy", [0.5], "invalid_field"),
    ("token_entropy", [-0.1, 0.5], "invalid_field"),
    ("token_entropy", float("inf"), "invalid_field"),
    ("token_entropy", "x", "invalid_field"),
    ("vocabulary_size", 1, "invalid_field"),
    ("vocabulary_size", 2**31, "invalid_field"),
    ("ambiguity", {"predictive": 1.1}, "invalid_field"),
    ("ambiguity", {"predictive": [0.5, -0.1]}, "invalid_field"),
    ("ambiguity", {"predicted": 0.5}, "invalid_field"),
    ("ambiguity", 0.5, "invalid_field"),
    ("probe", {**PROBE, "step": 2}, "invalid_field"),
    ("probe", {**PROBE, "directions": 3}, "invalid_field"),
    ("probe", {**PROBE, "extra": 3}, "invalid_field"),
    ("probe", {"step": 0}, "invalid_field"),
    ("probe", {**PROBE, "basis_id": LONG}, "invalid_field"),
    ("probe", {**PROBE, "drift_dx_norm": np.ones(2)}, "invalid_field"),
    ("probe", {**PROBE, "layers": list(range(1025))}, "invalid_field"),
    ("probe", 3, "invalid_field"),
    ("flip_distance", [1.0, 2.0], "invalid_field"),
    ("flip_distance", -np.ones((2, 3)), "invalid_field"),
    ("latency_us", -1, "invalid_field"),
    ("latency_us", 2**63, "invalid_field"),
    ("judge_score", float("nan"), "invalid_field"),
    ("judge_score", "good", "invalid_field"),
    ("task_type", 5, "invalid_field"),
    ("applied_policy_version", -1, "invalid_field"),
    ("latency_ms", 3, "invalid_field"),
]


def emit(producer: Producer, name: str, value: Any) -> bool:
    arguments: dict[str, Any] = {"session_id": "s", "logits": LOGITS, "position_start": 0}
    return producer.emit_logits(**{**arguments, name: value})


@pytest.mark.parametrize(("name", "value", "reason"), BAD)
def test_bad_argument(
    producer: Producer, name: str, value: Any, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    producer._sender._said.clear()
    before = producer.stats()
    with caplog.at_level(logging.WARNING, "routekeel.sdk"):
        assert not emit(producer, name, value)
    after = producer.stats()
    assert after.dropped[reason] == before.dropped[reason] + 1
    assert after.emitted == before.emitted + 1
    (message,) = [r.getMessage() for r in caplog.records if r.name == "routekeel.sdk"]
    words = {"layers": "layer", "phase": "phase"}
    assert words.get(name, name) in message


def test_a_refused_chunk_takes_no_number(producer: Producer) -> None:
    assert emit(producer, "session_id", "numbers")
    assert not emit(producer, "logits", np.full((1, 1, 1), np.nan))
    session = producer._sender._sessions.enter("numbers")
    assert session.sequence == 1


def test_what_lies_at_the_limits_is_taken(producer: Producer) -> None:
    texts = ("request_id", "model", "model_revision", "backend", "router_kind", "task_type")
    assert all(emit(producer, name, "é" * 512) for name in texts)
    assert emit(producer, "layers", [0, 1, 1023])
    assert emit(producer, "position_start", 2**62)
    assert emit(producer, "logits", np.zeros((1, 32, 4096), np.float16))


def test_a_worker_id_that_the_stream_would_refuse_is_refused(producer: Producer) -> None:
    made = Producer(producer.config, model="m", backend="b", top_k=1, schema_id=1, worker_id=LONG)
    with made:
        assert not emit(made, "request_id", "r")
        assert made.stats().dropped["invalid_field"] == 1
        made.close(0)


def test_after_the_last_sequence_number_nothing_is_sent_under_a_wrong_one(
    producer: Producer,
) -> None:
    def numbered(**arguments: int) -> bool:
        return producer.emit_logits("last", LOGITS, position_start=0, **arguments)

    assert numbered(sequence=2**62)
    assert not numbered()
    assert numbered(sequence=5)


@pytest.mark.parametrize("name", ["latency_us", "vocabulary_size", "applied_policy_version"])
def test_a_whole_number_is_an_integer_whatever_its_type(producer: Producer, name: str) -> None:
    assert all(emit(producer, name, value) for value in (3, 3.0, np.float32(3), np.int16(3)))
    assert not emit(producer, name, 3.5)


@given(
    st.sampled_from([name for name, _, _ in BAD] + ["logits"]),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=2),
        max_leaves=6,
    ),
)
@settings(max_examples=300, deadline=None)
def test_anything_at_all_is_taken_or_counted(producer: Producer, name: str, value: Any) -> None:
    before = producer.stats()
    emit(producer, name, value)
    after = producer.stats()
    assert after.emitted == before.emitted + 1
    assert after.emitted == after.delivered + after.dropped_total + after.in_flight
    assert after.dropped["internal_error"] == 0
