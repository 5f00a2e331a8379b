"""The order of eviction, against an OrderedDict, and built from a store of encoded sessions."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routekeel.operators.state import initial_rows
from routekeel.streams.topology.changelog import MemoryStore
from routekeel.streams.topology.config import TopologyConfig
from routekeel.streams.topology.intake import Roster
from routekeel.streams.topology.recency import Recency
from routekeel.streams.topology.session import Session
from routekeel.streams.topology.watermark import Watermark

KEYS = st.integers(0, 24).map(lambda number: b"s%d" % number)
STEPS = st.lists(st.tuples(st.sampled_from(["touch", "touch", "remove", "evict"]), KEYS))


def oldest(recency: Recency) -> tuple[bytes, int] | None:
    found = recency.oldest()
    return None if found is None else (recency.key_of(found[0]), found[1])


def touch_all(recency: Recency, keys: list[bytes], clocks: Iterable[int]) -> None:
    recency.touch_slots(recency.slots_of(keys), list(clocks))


def remove(recency: Recency, key: bytes) -> None:
    slot = recency.slot_of(key)
    recency.take_off(slot)
    recency.release([slot])


@given(STEPS)
def test_it_is_an_ordered_dict_on_every_prefix(steps: list[tuple[str, bytes]]) -> None:
    oracle: OrderedDict[bytes, int] = OrderedDict()
    recency = Recency()
    for clock, (step, key) in enumerate(steps):
        if step == "touch":
            oracle[key] = clock
            oracle.move_to_end(key)
            recency.touch(key, clock)
        elif step == "remove" and key in oracle:
            del oracle[key]
            remove(recency, key)
        elif step == "evict" and oracle:
            key, _ = oracle.popitem(last=False)
            remove(recency, key)
        assert list(recency) == list(oracle)
        assert len(recency) == len(oracle)
        assert oldest(recency) == next(iter(oracle.items()), None)


@given(st.lists(st.lists(KEYS, max_size=12), max_size=8), KEYS)
def test_many_at_a_time_is_one_after_the_other(batches: list[list[bytes]], gone: bytes) -> None:
    oracle: OrderedDict[bytes, int] = OrderedDict()
    recency = Recency()
    for number, keys in enumerate(batches):
        clocks = range(100 * number, 100 * number + len(keys))
        touch_all(recency, keys, clocks)
        for key, clock in zip(keys, clocks, strict=True):
            oracle[key] = clock
            oracle.move_to_end(key)
        if gone in oracle:
            del oracle[gone]
            remove(recency, gone)
        assert list(recency) == list(oracle)
        assert oldest(recency) == next(iter(oracle.items()), None)


class Alike(bytes):
    """A key whose hash every other one has, too."""

    def __hash__(self) -> int:
        return -7


@given(st.lists(st.lists(KEYS.map(Alike), max_size=12), max_size=4), KEYS.map(Alike))
def test_keys_with_one_hash_are_told_apart(batches: list[list[bytes]], gone: bytes) -> None:
    test_many_at_a_time_is_one_after_the_other.hypothesis.inner_test(batches, gone)


def test_many_at_a_time_when_all_arrays_grow() -> None:
    rng = random.Random(5)
    oracle: OrderedDict[bytes, int] = OrderedDict()
    recency = Recency()
    for number in range(200):
        keys = [b"session-%d" % rng.randrange(20 * number + 1) for _ in range(rng.randrange(500))]
        touch_all(recency, keys, [number] * len(keys))
        oracle.update(dict.fromkeys(keys, number))
        for key in keys:
            oracle.move_to_end(key)
        assert oldest(recency) == next(iter(oracle.items()), None)
    assert list(recency) == list(oracle)


@given(st.permutations(range(6)))
def test_a_store_gives_the_order_of_last_offsets_across_logs(places: list[int]) -> None:
    # Offsets of a recreated topic start at 0 again; the log's epoch comes first.
    # Log epoch, offset, clock of each session's last touch.
    touches = [(0, 7, 10), (0, 90, 20), (1, 0, 30), (1, 8, 30), (1, 9, 40), (2, 3, 50)]
    changes: dict[bytes, bytes | None] = {}
    for place in places:
        epoch, offset, clock = touches[place]
        session = Session(b"m", b"", 2, (0,), initial_rows(1, 2), epoch, offset, clock)
        changes[b"s%d" % place] = session.encode()
    store = MemoryStore()
    store.commit(changes, Watermark("log"), 0)
    recency = Roster(TopologyConfig(), store, 0).table.order
    assert list(recency) == [b"s%d" % place for place in range(6)]
    assert oldest(recency) == (b"s0", 10)


def test_slots_are_used_again() -> None:
    recency = Recency()
    for number in range(1000):
        recency.touch(b"%d" % number, number)
        if number >= 10:
            remove(recency, b"%d" % (number - 10))
    assert len(recency) == 10
    assert len(recency._keys) <= 12


def test_many_touches_with_a_cap() -> None:
    rng = random.Random(4)
    oracle: OrderedDict[bytes, int] = OrderedDict()
    recency = Recency()
    for clock in range(100_000):
        key = b"session-%d" % rng.randrange(3_000)
        oracle[key] = clock
        oracle.move_to_end(key)
        recency.touch(key, clock)
        if len(oracle) > 2_000:
            gone, _ = oracle.popitem(last=False)
            assert oldest(recency) is not None
            remove(recency, gone)
    assert list(recency) == list(oracle)
    with pytest.raises(KeyError):
        recency.take_off(0)
