"""Repeats in a result topic, against a set of everything seen."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from routekeel.streams.sdk.repeats import HOLES_MAX, SeenOffsets


@given(st.lists(st.integers(0, 40), max_size=120))
def test_agrees_with_a_set_above_the_first(offsets: list[int]) -> None:
    seen, oracle = SeenOffsets(), set[int]()
    for offset in offsets:
        expected = offset not in oracle and (not oracle or offset > offsets[0])
        assert seen.is_new(offset) is expected
        oracle.add(offset)


@given(st.integers(1, 50), st.lists(st.integers(1, 50), max_size=6))
def test_restarts_of_a_worker_are_invisible(length: int, restarts: list[int]) -> None:
    log = list(range(length))
    for back in restarts:
        log += range(max(0, log[-1] - back), log[-1] + back)
    seen = SeenOffsets()
    assert [offset for offset in log if seen.is_new(offset)] == list(range(max(log) + 1))


def test_the_number_of_holes_is_bounded() -> None:
    seen = SeenOffsets()
    for offset in range(0, 4 * HOLES_MAX, 2):
        assert seen.is_new(offset)
    assert not seen.is_new(1), "the lowest hole was forgotten"
    assert seen.is_new(4 * HOLES_MAX - 3)
