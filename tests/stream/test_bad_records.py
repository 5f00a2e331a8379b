"""Every kind of bad record: a dead letter with the original bytes, the state untouched, the rest goes on."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from routekeel.streams.driver import TopologyDriver
from routekeel.streams.topology.config import TopologyConfig
from routekeel.streams.topology.dead_letter import dead_letter_fields
from tests.stream.chunks import chunk_fields

NAN = np.full((3, 2, 4), np.nan, "<f2").tobytes()
INFINITE = np.array([*[0.0] * 23, np.inf], "<f2").tobytes()

LONG = "é" * 513


def probe(**changes: Any) -> dict[str, Any]:
    norms = dict.fromkeys(("dx_norm", "dw_norm", "dy_norm"), b"\0" * 8)
    drift = dict.fromkeys(("drift_dx_norm", "drift_dy_norm"), b"\0" * 4)
    kind = {"step": 0, "layers": [1], "epsilon": 0.1, "basis_id": "b", "directions": 2}
    return {"probe": {**kind, **norms, **drift, **changes}}


def shaped(steps: int, layers: list[int], experts: int, **changes: Any) -> dict[str, Any]:
    """The smallest record that claims this shape: a float16, an id and the rest's logsumexp per row."""
    row = np.array([(1.0, 0, 0.0)], "<f2,<u2,<f4").tobytes()
    logits = row * (steps * len(layers))
    shape = {"steps": steps, "layers": layers, "experts": experts, "top_k": 1, "top_m": 1}
    return {**shape, "encoding": "TOPM_F16", "logits": logits, "token_entropy": None, **changes}


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("NaN logits", {"logits": NAN}, "non_finite_logits"),
    ("infinite logits", {"logits": INFINITE}, "non_finite_logits"),
    ("short logits", {"logits": b"\0" * 46}, "bad_length"),
    ("short entropy", {"token_entropy": b"\0" * 8}, "bad_length"),
    ("zero steps", {"steps": 0}, "bad_shape"),
    ("too many experts", {"experts": 5000, "logits": b""}, "bad_shape"),
    ("unsorted layers", {"layers": [1, 0]}, "bad_layers"),
    ("repeated layers", {"layers": [1, 1]}, "bad_layers"),
    ("top_k above E", {"top_k": 5}, "bad_top_k"),
    ("negative position", {"position_start": -1}, "negative_position"),
    ("negative sequence", {"sequence": -1}, "negative_position"),
    ("clock in 1970", {"event_time_us": 0}, "implausible_event_time"),
    ("clock in 2400", {"event_time_us": 13_569_465_600_000_000}, "implausible_event_time"),
    ("bad top_m", {"encoding": "TOPM_F16", "top_m": 9}, "bad_top_m"),
    ("ambiguity of 2", {"ambiguity_predictive": np.full(3, 2, "<f4").tobytes()}, "bad_ambiguity"),
    ("long session id", {"session_id": "s" * 513}, "session_id_too_long"),
    ("reserved session id", {"session_id": "\0s"}, "reserved_session_id"),
    ("empty session id", {"session_id": ""}, "empty_session_id"),
    ("negative layer", {"layers": [-1, 1]}, "bad_layers"),
    ("layer 1024", {"layers": [1, 1024]}, "bad_layers"),
    ("layer 32 of 4096 experts", shaped(1, [32], 4096), "too_many_routes"),
    ("two million rows of 4096", shaped(4096, list(range(32)), 4096), "too_many_values"),
    ("position at the end", {"position_start": 2**63 - 2}, "position_too_large"),
    ("sequence at the end", {"sequence": 2**63 - 1}, "position_too_large"),
    ("negative drops", {"dropped_before": -1}, "negative_count"),
    *[
        (f"long {name}", {name: text}, "text_too_long")
        for name in ("request_id", "model", "model_revision", "worker_id", "backend")
        for text in (LONG, "x" * 70_000)
    ],
    ("long router kind", {"router_kind": LONG}, "text_too_long"),
    ("long task type", {"task_type": LONG}, "text_too_long"),
    ("long basis", probe(basis_id=LONG), "text_too_long"),
    ("short drift dx", probe(drift_dx_norm=b""), "bad_length"),
    ("ragged drift dy", probe(drift_dy_norm=b"\0" * 5), "bad_length"),
    ("long drift dy", probe(drift_dy_norm=b"\0" * 8), "bad_length"),
    ("short probe norms", probe(dw_norm=b"\0" * 4), "bad_length"),
    ("probe without directions", probe(directions=0), "bad_probe"),
    ("probe of -2 directions", probe(directions=-2, layers=[]), "bad_probe"),
    ("probe of many layers", probe(layers=[1] * 1025), "bad_probe"),
    ("probe outside", probe(step=3), "bad_probe"),
    ("short flip distance", {"flip_distance": b"\0" * 20}, "bad_length"),
    ("ragged flip distance", {"flip_distance": b"\0" * 23}, "bad_length"),
    ("long token ids", {"token_ids": b"\0" * 16}, "bad_length"),
    ("ragged token ids", {"token_ids": b"\0" * 11}, "bad_length"),
]


@pytest.mark.parametrize(
    ("changes", "reason"), [(c, r) for _, c, r in BAD], ids=[name for name, _, _ in BAD]
)
def test_a_bad_record_is_dead_lettered_and_changes_nothing(
    changes: dict[str, Any], reason: str
) -> None:
    driver, clean = TopologyDriver(TopologyConfig()), TopologyDriver(TopologyConfig())
    fields = {**chunk_fields("s", 3), **changes}
    for target in (driver, clean):
        target.append(chunk_fields("s", 0))
        if target is driver:
            target.append(fields)
        target.append(chunk_fields("s", 3))
        target.run()
    (letter,) = driver.dead_letters
    assert letter.error_class == reason
    assert letter.message
    assert letter.record.value == driver.log[1].value
    assert [t["tokens_applied"] for t in driver.telemetry()] == [3, 3]
    assert _packed(driver) == _packed(clean)


def test_what_lies_at_the_limits_is_applied() -> None:
    driver = TopologyDriver(TopologyConfig())
    text = "é" * 512
    names = ("request_id", "model", "model_revision", "worker_id", "backend", "router_kind")
    at_the_end = {"position_start": 2**62, "sequence": 2**62}
    driver.append(chunk_fields("a", 0, **at_the_end, **dict.fromkeys(names, text)))
    driver.append(chunk_fields("b", 0, 1, layers=[0, 1023], experts=128, task_type=text))
    driver.append({**chunk_fields("c", 0), **shaped(1, list(range(32)), 4096)})
    driver.append({**chunk_fields("d", 0), **probe()})
    driver.run()
    assert [t["tokens_applied"] for t in driver.telemetry()] == [3, 1, 1, 3]


def test_a_session_never_has_more_layers_than_ids_exist() -> None:
    driver = TopologyDriver(TopologyConfig(kernel="numpy"))
    pieces = [list(range(first, 1024, 4)) for first in range(4)]
    for number, layers in enumerate(pieces * 2):
        driver.append(chunk_fields("s", 5 * number, 1, layers=layers, sequence=number))
    driver.append(chunk_fields("s", 99, 1, layers=[7, 4000], sequence=99))
    driver.run([1] * 9)
    from routekeel.streams.topology.session import Session

    state = Session.decode(driver.states()[b"s"])
    assert state.layers == tuple(range(1024))
    assert [letter.error_class for letter in driver.dead_letters] == ["bad_layers"]


def test_an_error_that_nobody_thought_of_is_a_bad_record_and_not_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(fields: Any) -> float:
        raise OverflowError("nobody thought of this")

    monkeypatch.setattr("routekeel.streams.topology.chunk._check_texts", fail)
    driver = TopologyDriver(TopologyConfig())
    driver.append(chunk_fields("s", 0))
    driver.run()
    (letter,) = driver.dead_letters
    assert letter.error_class == "unexpected_error"
    assert "nobody thought of this" in letter.message


def _packed(driver: TopologyDriver) -> bytes:
    from routekeel.streams.topology.session import Session

    return Session.decode(driver.states()[b"s"]).packed.tobytes()


def test_a_key_that_is_not_the_session_is_refused() -> None:
    driver = TopologyDriver(TopologyConfig())
    driver.append(chunk_fields("s", 0))
    record = driver.log.pop()
    driver.append_raw(b"other", record.value, record.timestamp_ms)
    driver.append_raw(b"s", None)
    driver.run()
    assert [letter.error_class for letter in driver.dead_letters] == ["key_mismatch", "empty_value"]


def test_truncated_and_random_bytes_never_pass_and_never_stop_the_stream() -> None:
    driver = TopologyDriver(TopologyConfig())
    driver.append(chunk_fields("s", 0))
    good = driver.log[0].value
    assert good is not None
    rng = random.Random(7)
    for length in range(0, len(good), 3):
        driver.append_raw(b"s", good[:length])
    for _ in range(200):
        driver.append_raw(b"s", rng.randbytes(rng.randint(0, 300)))
    driver.append(chunk_fields("s", 3))
    driver.run()
    assert len(driver.dead_letters) == len(driver.log) - 2
    assert [t["tokens_applied"] for t in driver.telemetry()] == [3, 3]


def test_the_dead_letter_keeps_the_original_bytes_and_coordinates() -> None:
    driver = TopologyDriver(TopologyConfig())
    driver.append_raw(b"key", b"\x01not avro", 1234)
    driver.run()
    fields = dead_letter_fields(driver.processor.source, driver.dead_letters[0])
    assert (fields["key"], fields["value"], fields["record_time_us"]) == (
        b"key",
        b"\x01not avro",
        1_234_000,
    )
    assert (fields["source_topic_id"], fields["source_partition"], fields["source_offset"]) == (
        "log-1",
        0,
        0,
    )
