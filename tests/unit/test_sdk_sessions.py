"""The bounded map of sessions: sequences never repeat under one epoch, no drop goes unreported."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from routekeel.streams.sdk.sessions import SessionCounts

NAMES = st.sampled_from([f"s{i}" for i in range(6)])


def test_the_least_recent_goes_first() -> None:
    counts = SessionCounts(2, lambda: 100)
    a, b = counts.enter("a"), counts.enter("b")
    assert counts.enter("a") is a
    counts.enter("c")
    assert counts.get("b") is None
    assert counts.get("a") is a
    assert (len(counts), counts.evicted) == (2, 1)
    assert counts.enter("b") is not b


def test_looking_does_not_make_recent() -> None:
    counts = SessionCounts(2, lambda: 100)
    counts.enter("a")
    counts.enter("b")
    counts.get("a")
    counts.enter("c")
    assert counts.get("a") is None


def test_the_epoch_moves_on_though_the_clock_stands() -> None:
    counts = SessionCounts(1, lambda: 100)
    epochs = [counts.enter(name).epoch for name in "abab"]
    assert epochs == sorted(set(epochs))


def test_no_epoch_is_used_up_without_an_eviction() -> None:
    ticks = iter(range(100, 200))
    counts = SessionCounts(10, lambda: next(ticks))
    assert {counts.enter(name).epoch for name in "abc"} == {100}


@given(st.integers(1, 4), st.lists(st.tuples(NAMES, st.booleans()), max_size=60))
def test_numbers_and_drops_are_exact(limit: int, events: list[tuple[str, bool]]) -> None:
    """Any history of sent and dropped chunks: (session, epoch, sequence) unique and gapless."""
    counts = SessionCounts(limit, lambda: 100)
    sent: dict[tuple[str, int], list[int]] = defaultdict(list)
    reported = drops = 0
    for name, dropped in events:
        if dropped:
            counts.dropped(name)
            drops += 1
            continue
        session = counts.enter(name)
        sent[name, session.epoch].append(session.sequence)
        session.sequence += 1
        reported += session.dropped + counts.unreported
        session.dropped = counts.unreported = 0
        assert len(counts) <= limit
    for numbers in sent.values():
        assert numbers == list(range(len(numbers)))
    waiting = counts.unreported + sum(
        session.dropped for n in range(6) if (session := counts.get(f"s{n}")) is not None
    )
    assert reported + waiting == drops
