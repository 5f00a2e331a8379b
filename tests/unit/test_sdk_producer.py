"""The producer on librdkafka's mock broker: what arrives, what is refused, and exact counts."""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from routekeel.schemas.logits import unpack
from routekeel.streams.sdk.producer import Producer
from routekeel.streams.sdk.refusal import REASONS
from tests.unit.mock_broker import MockKafka, decoded, fixed_ids

pytestmark = pytest.mark.slow

T, L, E = 2, 3, 8
LOGITS = np.random.default_rng(1).standard_normal((T, L, E)).astype(np.float16)
TOPIC = "routekeel.logits"


@pytest.fixture(scope="module")
def kafka() -> Iterator[MockKafka]:
    broker = MockKafka()
    yield broker
    broker.close()


@pytest.fixture
def topic(request: pytest.FixtureRequest) -> str:
    return "t-" + request.node.name.replace("[", "-").replace("]", "")


def make(servers: str, **more: Any) -> Producer:
    defaults = {"model": "m", "backend": "b", "top_k": 2, "worker_id": "w", "schema_id": 1}
    return Producer(bootstrap_servers=servers, **{**defaults, **more})


@pytest.fixture
def producer(kafka: MockKafka, topic: str) -> Iterator[Producer]:
    made = make(kafka.servers, topic=topic)
    yield made
    made.close(5)


def test_every_field_arrives(kafka: MockKafka, topic: str, producer: Producer) -> None:
    probe = {
        "step": 1,
        "layers": [4, 9],
        "epsilon": 0.01,
        "basis_id": "b1",
        "directions": 3,
        **{name: np.full((2, 3), 0.5) for name in ("dx_norm", "dw_norm", "dy_norm")},
        "drift_dx_norm": [0.25, 0.5],
    }
    assert producer.emit_logits(
        "sé",
        LOGITS,
        position_start=7,
        request_id="r",
        phase="prefill",
        model="mm",
        model_revision="rev",
        backend="bb",
        layers=[1, 4, 9],
        top_k=3,
        router_kind="sigmoid",
        event_time_us=1_700_000_000_000_001,
        sequence=11,
        producer_epoch=5,
        token_ids=[3, 4],
        token_entropy=[0.5, 1.5],
        vocabulary_size=100,
        ambiguity={"predictive": 0.25, "paraphrase": None, "specification": [0, np.nan]},
        probe=probe,
        flip_distance=np.ones((T, L)),
        latency_us=np.int64(5),
        success=np.True_,
        judge_score=0.75,
        task_type="chat",
        applied_policy_version=2,
    )
    assert producer.flush(10) == 0
    (message,) = kafka.messages(topic, 1)
    assert message.key() == "sé".encode()
    (record,) = decoded([message])
    columns = {
        "token_ids": np.array([3, 4], "<i4"),
        "token_entropy": np.array([0.5, 1.5], "<f4"),
        "ambiguity_predictive": np.full(T, 0.25, "<f4"),
        "ambiguity_specification": np.array([0, np.nan], "<f4"),
        "flip_distance": np.ones((T, L), "<f4"),
    }
    for name, expected in columns.items():
        np.testing.assert_array_equal(
            np.frombuffer(record.pop(name), expected.dtype), expected.ravel()
        )
    found = record.pop("probe")
    assert found["layers"] == [4, 9]
    assert found["drift_dy_norm"] is None
    assert np.frombuffer(found["dw_norm"], "<f4").tolist() == [0.5] * 6
    assert unpack(record.pop("logits"), T, L, E, "F16").tolist() == LOGITS.tolist()
    assert record == {
        **{"session_id": "sé", "request_id": "r", "model": "mm", "model_revision": "rev"},
        **{"backend": "bb", "worker_id": "w", "producer_epoch": 5, "sequence": 11},
        **{"event_time_us": 1_700_000_000_000_001, "phase": "prefill", "position_start": 7},
        **{"steps": T, "layers": [1, 4, 9], "experts": E, "top_k": 3, "router_kind": "sigmoid"},
        **{"rank_data": 0, "rank_tensor": 0, "rank_pipeline": 0, "rank_expert": 0},
        **{"encoding": "F16", "top_m": 0, "vocabulary_size": 100, "ambiguity_paraphrase": None},
        **{"latency_us": 5, "success": True, "judge_score": 0.75, "task_type": "chat"},
        **{"applied_policy_version": 2, "dropped_before": 0},
    }


@pytest.mark.parametrize(("encoding", "top_m"), [("F32", 0), ("F16", 0), ("TOPM_F16", 5)])
def test_encodings(kafka: MockKafka, topic: str, encoding: str, top_m: int) -> None:
    with make(kafka.servers, topic=topic, encoding=encoding, top_m=top_m or 5) as producer:
        assert producer.emit_logits("s", LOGITS.astype(np.float32), position_start=0)
    (record,) = decoded(kafka.messages(topic, 1))
    assert (record["encoding"], record["top_m"]) == (encoding, top_m)
    values = unpack(record["logits"], T, L, E, encoding, top_m)
    top = np.argmax(LOGITS, axis=2)
    np.testing.assert_array_equal(np.argmax(values, axis=2), top)


def test_drops_travel_with_the_sessions_next_chunk(
    kafka: MockKafka, topic: str, producer: Producer
) -> None:
    bad = np.full_like(LOGITS, np.nan)
    outcomes = [
        producer.emit_logits(session, logits, position_start=0)
        for session, logits in (
            ("a", LOGITS),
            ("a", bad),
            ("b", bad),
            ("b", LOGITS),
            ("a", bad),
            ("a", LOGITS),
            ("", LOGITS),
            ("a", LOGITS),
            ("b", LOGITS),
        )
    ]
    assert outcomes == [True, False, False, True, False, True, False, True, True]
    assert producer.flush(10) == 0
    records = decoded(kafka.messages(topic, 5))
    told = [(r["session_id"], r["sequence"], r["dropped_before"]) for r in records]
    # b was not known yet when its first chunk was dropped, and "" is nobody's.
    assert sorted(told) == [("a", 0, 0), ("a", 1, 2), ("a", 2, 1), ("b", 0, 1), ("b", 1, 0)]


def test_threads_lose_no_count_and_keep_every_sessions_order(
    kafka: MockKafka, topic: str, producer: Producer
) -> None:
    threads, each, names = 8, 60, ("x", "y", "z")
    bad = np.full_like(LOGITS, np.inf)

    def work(number: int) -> None:
        for step in range(each):
            producer.emit_logits(
                names[step % 3], bad if step % 5 == 4 else LOGITS, position_start=step
            )

    workers = [threading.Thread(target=work, args=(n,)) for n in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert producer.flush(20) == 0
    stats = producer.stats()
    dropped = threads * each // 5
    assert stats.emitted == threads * each == stats.delivered + dropped
    assert (stats.dropped["non_finite"], stats.in_flight, stats.in_flight_bytes) == (dropped, 0, 0)
    records = decoded(kafka.messages(topic, stats.delivered))
    by_session = defaultdict(list)
    for record in records:
        by_session[record["session_id"]].append(record["sequence"])
    assert all(numbers == list(range(len(numbers))) for numbers in by_session.values())
    left = sum(record["dropped_before"] for record in records)
    assert left + sum(s.dropped for s in producer._sender._sessions._sessions.values()) == dropped


def test_an_evicted_session_counts_anew_in_a_newer_epoch(kafka: MockKafka, topic: str) -> None:
    with make(kafka.servers, topic=topic, sessions_max=2) as producer:
        for session in ("a", "b", "a", "c", "b", "a"):
            assert producer.emit_logits(session, LOGITS, position_start=0)
        stats = producer.stats()
    assert (stats.sessions, stats.sessions_evicted) == (2, 3)
    numbers = defaultdict(list)
    for record in decoded(kafka.messages(topic, 6)):
        numbers[record["session_id"]].append((record["producer_epoch"], record["sequence"]))
    assert [n for _, n in numbers["a"]] == [0, 1, 0]
    assert [n for _, n in numbers["b"]] == [0, 0]
    assert all(pairs == sorted(set(pairs)) for pairs in numbers.values())


def test_each_reason_is_logged_once(producer: Producer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "routekeel.sdk"):
        for _ in range(3):
            producer.emit_logits("s", np.zeros((2, 2)), position_start=0)
            producer.emit_logits("s", LOGITS * np.float16(np.nan), position_start=0)
    messages = [r.getMessage() for r in caplog.records if r.name == "routekeel.sdk"]
    assert len(messages) == 2
    assert "invalid_shape: logits must be [T, L, E], got the shape (2, 2)" in messages[0]


def test_a_call_from_within_is_dropped_not_deadlocked(producer: Producer) -> None:
    outcomes: list[bool] = []
    send = producer._outbox.send

    def interrupted(value: bytes, key: bytes) -> None:
        if not outcomes:
            outcomes.append(producer.emit_logits("s", LOGITS, position_start=1))
        send(value, key)

    producer._outbox.send = interrupted  # type: ignore[method-assign]
    assert producer.emit_logits("s", LOGITS, position_start=0)
    assert outcomes == [False]
    assert producer.stats().dropped["reentrant"] == 1


def test_a_client_that_failed_for_good_is_made_anew(
    kafka: MockKafka, topic: str, producer: Producer
) -> None:
    class Fatal:
        def fatal(self) -> bool:
            return True

    assert producer.emit_logits("s", LOGITS, position_start=0)
    assert producer.flush(10) == 0
    first = producer._outbox._client
    producer._outbox._on_error(Fatal())  # type: ignore[arg-type]
    producer._outbox.poll()
    assert producer.emit_logits("s", LOGITS, position_start=1)
    assert producer._outbox._client is not first
    assert producer.flush(10) == 0
    assert [r["sequence"] for r in decoded(kafka.messages(topic, 2))] == [0, 1]


def test_after_close_everything_is_counted(kafka: MockKafka, topic: str) -> None:
    producer = make(kafka.servers, topic=topic)
    assert producer.emit_logits("s", LOGITS, position_start=0)
    assert producer.close(10) == 0
    assert producer.close(10) == 0
    assert not producer.emit_logits("s", LOGITS, position_start=1)
    assert producer.flush(1) == 0
    stats = producer.stats()
    assert (stats.emitted, stats.delivered, stats.dropped["closed"]) == (2, 1, 1)
    assert set(stats.dropped) == set(REASONS)


def test_the_id_of_the_schema_is_in_the_frame(kafka: MockKafka, topic: str) -> None:
    with make(kafka.servers, topic=topic, schema_id=2**31 - 1) as producer:
        producer.emit_logits("s", LOGITS, position_start=0)
    assert kafka.messages(topic, 1)[0].value()[:5].hex() == "007fffffff"
    assert fixed_ids()[1] == 1


def test_event_time_is_the_producers_clock(kafka: MockKafka, topic: str) -> None:
    with make(kafka.servers, topic=topic, clock_ns=lambda: 1_700_000_000_123_456_789) as producer:
        producer.emit_logits("s", LOGITS, position_start=0)
    (record,) = decoded(kafka.messages(topic, 1))
    assert record["event_time_us"] == record["producer_epoch"] == 1_700_000_000_123_456


def test_long_prefills_fit_in_slices_of_steps_max(kafka: MockKafka, topic: str) -> None:
    config = make(kafka.servers, topic=topic).config.with_fields(record_bytes_max=20_000)
    with Producer(config, model="m", backend="b", top_k=1, schema_id=1) as producer:
        steps = producer.steps_max(L, E)
        prefill = np.zeros((steps + 200, L, E), np.float16)
        assert producer.emit_logits("s", prefill[:steps], position_start=0)
        assert not producer.emit_logits("s", prefill, position_start=0)
        assert producer.stats().dropped["too_large"] == 1


def test_polling_collects_reports_without_a_flush(producer: Producer) -> None:
    deadline = time.monotonic() + 10
    while producer.stats().delivered < 50 and time.monotonic() < deadline:
        producer.emit_logits("s", LOGITS, position_start=0)
        time.sleep(0.005)
    assert producer._outbox.delivered >= 50
