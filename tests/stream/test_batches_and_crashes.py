"""The stream's central law: batch borders, crashes and torn checkpoints change no byte."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routekeel.streams.driver import TopologyDriver
from routekeel.streams.topology import partition
from routekeel.streams.topology.config import TopologyConfig
from tests.stream.chunks import START_US, chunk_fields

SESSIONS = ("a", "b", "c")


def scenario(seed: int, length: int = 40) -> list[dict[str, Any]]:
    """A log with everything in it: repeats, overlaps, gaps, partial layers, resets, idle times."""
    rng = random.Random(seed)
    position = dict.fromkeys(SESSIONS, 0)
    clock, records = START_US, []
    for index in range(length):
        session = rng.choice(SESSIONS)
        clock += rng.choice([1_000, 1_000, 40_000_000])
        kind = rng.random()
        changes: dict[str, Any] = {"event_time_us": clock, "sequence": index}
        start, steps = position[session], rng.randint(1, 4)
        if kind < 0.1 and start:
            start = max(0, start - rng.randint(1, 4))
        elif kind < 0.15:
            start += rng.randint(1, 3)
        elif kind < 0.25:
            changes["layers"] = rng.choice([[0], [1], [0, 1, 2]])
        elif kind < 0.3:
            changes["experts"] = 8
        elif kind < 0.33:
            changes["model_revision"] = "r2"
        elif kind < 0.38:
            changes["request_id"] = "request-2"
            start = 0
        position[session] = max(position[session], start + steps)
        records.append(chunk_fields(session, start, steps, seed=seed, **changes))
        if rng.random() < 0.1:
            records.append(records[-1])
    return records


def driver(seed: int, **config: Any) -> TopologyDriver:
    made = TopologyDriver(
        TopologyConfig(**{"session_ttl_us": 60_000_000, "sessions_max": 2, **config})
    )
    for index, fields in enumerate(scenario(seed)):
        made.append(fields)
        if index % 11 == 5:
            made.append_raw(b"a", b"\x00broken", 0)
    return made


@pytest.mark.parametrize("seed", range(6))
def test_batch_borders_change_no_byte(seed: int) -> None:
    whole, single = driver(seed), driver(seed)
    whole.run()
    single.run([1] * len(single.log))
    assert whole.distinct_bytes() == single.distinct_bytes()
    assert whole.states() == single.states()
    assert len(whole.distinct_bytes()) + len(whole.dead_letters) == len(whole.log)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), faults=st.randoms(use_true_random=False))
def test_crashes_and_torn_checkpoints_change_no_byte(seed: int, faults: random.Random) -> None:
    expected, actual = driver(seed % 8), driver(seed % 8)
    expected.run()
    while actual.processor.watermark.applied_offset + 1 < len(actual.log):
        start = actual.processor.watermark.applied_offset + 1
        actual.apply(actual.log[start : start + faults.randint(1, 9)])
        fault = faults.random()
        if fault < 0.3:
            actual.checkpoint()
        elif fault < 0.5:
            actual.crash(torn_records=faults.randint(0, 4))
    actual.checkpoint()
    assert actual.distinct_bytes() == expected.distinct_bytes()
    assert actual.states() == expected.states()


def test_a_late_writer_changes_nothing() -> None:
    """A stopped process that wakes up writes its checkpoint behind the new owner's."""
    expected, actual = driver(3), driver(3)
    expected.run()
    actual.apply(actual.log[:20])
    zombie = actual.processor
    actual.crash()
    actual.run([7])
    actual.changelog += zombie.checkpoint()
    actual.crash()
    actual.run()
    assert actual.states() == expected.states()


@pytest.mark.parametrize("compiled", [False, True])
def test_a_batch_is_applied_in_pieces(monkeypatch: pytest.MonkeyPatch, compiled: bool) -> None:
    whole, pieces = (TopologyDriver(TopologyConfig(), compiled=compiled) for _ in range(2))
    for index in range(40):
        whole.append(chunk_fields(f"s{index % 3}", 3 * (index // 3)))
    pieces.log = whole.log
    whole.run()
    monkeypatch.setattr(partition, "PIECE_VALUES", 5 * 24)
    sizes: list[int] = []
    apply = pieces.processor._apply
    monkeypatch.setattr(
        pieces.processor, "_apply", lambda piece, *rest: (sizes.append(len(piece)), apply(piece, *rest))[1]
    )  # fmt: skip
    pieces.run()
    assert sum(sizes) == 40 and max(sizes) == 5
    assert pieces.sent == whole.sent
    assert pieces.states() == whole.states()
