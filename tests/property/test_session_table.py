"""The table of sessions against two dicts: what is, and what was kept; through batches, evictions,
checkpoints and roll-backs, with and without a store behind it, by compiled and by plain copies.
"""

from __future__ import annotations

import mmap
import random
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routekeel.streams.topology import state_heap
from routekeel.streams.topology.changelog import Changes
from routekeel.streams.topology.recency import TOUCH_BYTES
from routekeel.streams.topology.session_table import SessionTable
from routekeel.streams.topology.state_heap import ELSEWHERE, NOWHERE, StateHeap
from routekeel.streams.topology.version import Version

STEPS = st.lists(st.sampled_from(["batch", "batch", "keep", "roll back"]), max_size=14)


class World:
    """A table and what it should hold. `store` has what a table that is not all leaves to it."""

    def __init__(self, seed: int, is_all: bool) -> None:
        self.rng = random.Random(seed)
        self.table = SessionTable(is_all=is_all)
        self.now: dict[bytes, bytes] = {}
        self.kept: dict[bytes, bytes] = {}
        self.changed: dict[bytes, bytes | None] = {}
        self.offset = 0

    def state(self) -> bytes:
        """Of any size, mostly of that of others."""
        size = self.rng.choice([30, 64, 65, 400, 400, 400, self.rng.randrange(3000)])
        return self.rng.randbytes(1) * size + b"%d" % self.offset

    def batch(self) -> None:
        """Touch some, read their old states while others leave, write the new ones."""
        keys = [b"s%d" % self.rng.randrange(40) for _ in range(self.rng.randint(1, 30))]
        keys = list(dict.fromkeys(keys))
        slots = self.table.slots_of(keys).astype(np.int64)
        self.table.order.touch_slots(slots, [self.offset] * len(keys))
        heap = self.table.heap
        away = slots[heap.start[slots] == ELSEWHERE]
        heap.load(away, [self.kept[key] for key in self.table.order.keys_of(away.tolist())])
        leaving = [key for key in self.now if key not in keys and self.rng.random() < 0.1]
        leaving += [key for key in keys if self.rng.random() < 0.05]
        for key in leaving:
            self.offset += 1
            self.table.evict(self.table.order.slot_of(key), Version(0, self.offset))
        for key, slot in zip(keys, slots.tolist(), strict=True):  # also of those that leave
            found = heap.get(slot) if heap.start[slot] >= 0 else None
            assert found == self.now.get(key)
        was_kept = heap.is_kept(slots)
        stays = np.array([key not in leaving for key in keys])
        states = [self.state() for _ in keys]
        heap.write(slots[stays], [s for s, stay in zip(states, stays, strict=True) if stay])
        self.table.settle(slots[stays & was_kept])
        for key in leaving:
            self.now.pop(key, None)
            self.changed[key] = None
        for key, state, stay in zip(keys, states, stays, strict=True):
            if stay:
                self.now[key] = self.changed[key] = state

    def keep(self) -> None:
        """A checkpoint, whose records are what changed."""
        changes = Changes(self.table)
        assert dict(changes.items()) == self.changed == {key: changes[key] for key in changes}
        assert all(key in self.changed or key not in changes for key in self.kept)
        assert {r.key: r.value for r in changes.records()} == self.changed
        assert len(changes) == len(self.changed)
        self.table.keep()
        self.kept, self.changed = dict(self.now), {}

    def check(self) -> None:
        """Everything is what it should be."""
        table = self.table
        assert {k: table.state_of(k) or self.kept[k] for k in table.order} == self.now
        if table.is_all:
            assert dict(table.kept()) == self.kept
            assert all(table.kept_of(key) == value for key, value in self.kept.items())
        places_do_not_overlap(table.heap)


def places_do_not_overlap(heap: StateHeap) -> None:
    """No byte belongs to two states, and none to one that lies free."""
    places = {}
    for starts, sizes in ((heap.start, heap.size), (heap.kept_start, heap.kept_size)):
        here = starts >= 0
        places |= dict(zip(starts[here].tolist(), sizes[here].tolist(), strict=True))
    for room, stack in heap._free.items():
        for start in np.concatenate(stack).tolist() if stack else []:
            assert start not in places
            places[start] = room
    end = 0
    for start in sorted(places):
        assert start >= end
        end = start + places[start]
    assert end <= len(heap._memory)


@given(st.integers(0, 2**32), STEPS, st.booleans(), st.booleans())
def test_it_is_two_dicts(seed: int, steps: list[str], is_all: bool, compiled: bool) -> None:
    with (
        mock.patch.object(state_heap, "compiled_kernel_exists", lambda: compiled),
        mock.patch.object(state_heap, "WASTE_MIN", 0),  # so that places are moved together often
    ):
        world = World(seed, is_all)
        for step in steps:
            if step == "roll back" and is_all:
                world.table.roll_back()
                world.now, world.changed = dict(world.kept), {}
                slots = world.table.slots_of(list(world.now)).tolist()
                world.table.order.begin(slots, [bytes(TOUCH_BYTES)] * len(slots))
            elif step == "keep":
                world.keep()
            else:
                world.batch()
            world.check()


def test_a_place_that_was_left_is_used_again_after_settling() -> None:
    heap = StateHeap()
    heap.widen(8)
    one, two = np.array([1], np.int64), np.array([2], np.int64)
    (first,) = heap.place(one, np.array([100]))
    heap.drop(one)
    (second,) = heap.place(two, np.array([100]))
    assert second != first and heap.free_bytes == 0
    heap.settle()
    assert heap.free_bytes == 128
    assert heap.place(one, np.array([70])) == first
    assert heap.free_bytes == 0


def test_memory_shrinks_when_most_sessions_have_left() -> None:
    heap, slots = StateHeap(), np.arange(1, 60_001)
    heap.widen(60_001)
    heap.write(slots, [b"%d" % slot * 100 for slot in slots.tolist()])
    heap.keep(slots)
    full = len(heap._memory)
    heap.drop(slots[50:])
    heap.keep(slots[50:])
    heap.settle()
    heap.compact()
    assert len(heap._memory) < full / 100
    assert [heap.get(slot) for slot in range(1, 51)] == [b"%d" % s * 100 for s in range(1, 51)]
    assert (heap.start[slots[50:]] == NOWHERE).all()


def test_memory_that_cannot_be_resized_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    class Rigid(mmap.mmap):
        def resize(self, size: int) -> None:
            raise SystemError("mmap: resizing not available--no mremap()")

    monkeypatch.setattr(
        state_heap,
        "_memory",
        lambda size: Rigid(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS),
    )
    heap, slots = StateHeap(), np.arange(1, 2001)
    heap.widen(2001)
    states = [b"%d" % slot * 50 for slot in slots.tolist()]
    heap.write(slots[:1000], states[:1000])
    heap.write(slots[1000:], states[1000:])
    assert [heap.get(slot) for slot in slots.tolist()] == states
