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

BAD: list[tuple[str, dict[str, Any], str]] = [
    ("NaN logits", {"logits": NAN}, "non_finite_logits"),
    ("infinite logits", {"logits": INFINITE}, "non_finite_logits"),
    ("short logits", {"logits": b"\0" * 46}, "bad_length"),
    ("short entropy", {"token_entropy": b"\0" * 8}, "bad_length"),
    ("zero steps", {"steps": 0}, "bad_shape"),
    ("too many experts", {"experts": 5000, "logits": b""}, "bad_shape"),
    ("unsorted layers", {"layers": [1, 0]}, "bad_layers"),
    ("a layer id below 0", {"layers": [-1, 0]}, "bad_layers"),
    ("a layer id beyond all", {"layers": [0, 5000]}, "bad_layers"),
    ("a state no record can hold", {"layers": [0, 4000], "experts": 600}, "state_too_large"),
    ("long model", {"model": "m" * 70_000}, "name_too_long"),
    ("long request id", {"request_id": "r" * 70_000}, "name_too_long"),
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
