"""Taking a batch in, against the rule for one record after the other written down plainly."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

import numpy as np
from hypothesis import event, given
from hypothesis import strategies as st

from routekeel.streams.topology import intake
from routekeel.streams.topology.changelog import MemoryStore
from routekeel.streams.topology.config import TopologyConfig
from routekeel.streams.topology.intake import Roster
from routekeel.streams.topology.records import BatchCounts
from routekeel.streams.topology.version import Version
from routekeel.streams.topology.watermark import Watermark

TTL_US = 100


@dataclass
class Plain:
    """One record at a time: the least recent goes when it is idle, or when there is one too many."""

    sessions_max: int
    clocks: OrderedDict[bytes, int] = field(default_factory=OrderedDict)
    states: dict[bytes, bytes] = field(default_factory=dict)
    gone: list[tuple[bytes, int, str]] = field(default_factory=list)

    def take(
        self, keys: list[bytes], clocks: list[int], first: int
    ) -> tuple[list[int], list[bytes], list[bytes], dict[bytes, int]]:
        slots: list[int] = []
        names: list[bytes] = []
        values: list[bytes] = []
        current: dict[bytes, int] = {}

        def evict(offset: int, why: str) -> None:
            key, _ = self.clocks.popitem(last=False)
            self.states.pop(key, None)
            current.pop(key, None)
            self.gone.append((key, offset, why))

        for index, (key, clock) in enumerate(zip(keys, clocks, strict=True)):
            while self.clocks and next(iter(self.clocks.values())) < clock - TTL_US:
                evict(first + index, "idle")
            if key not in current:
                current[key] = len(names)
                names.append(key)
                values.append(self.states.get(key, b""))
            slots.append(current[key])
            self.clocks[key] = clock
            self.clocks.move_to_end(key)
            if len(self.clocks) > self.sessions_max:
                evict(first + index, "cap")
        return slots, names, values, current


@st.composite
def batches(draw: st.DrawFn) -> list[tuple[list[bytes], list[int]]]:
    """Batches of up to three hundred records of a few or many sessions, the clock in steps and leaps."""
    found, clock = [], 0
    for _ in range(draw(st.integers(1, 4))):
        count, sessions = draw(st.integers(1, 300)), draw(st.sampled_from([2, 20, 200]))
        rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        leaps = rng.random(count) < draw(st.sampled_from([0, 0.01, 0.2]))
        steps = np.where(leaps, rng.integers(0, 2 * TTL_US, count), rng.integers(0, 3, count))
        clocks = clock + np.cumsum(steps)
        clock = int(clocks[-1])
        keys = [b"s%d" % number for number in rng.integers(0, sessions, count)]
        found.append((keys, clocks.tolist()))
    return found


@given(batches(), st.sampled_from([1, 5, 19, 150, 10_000]), st.booleans())
def test_a_batch_is_its_records_one_after_the_other(
    load: list[tuple[list[bytes], list[int]]], sessions_max: int, checkpoints: bool
) -> None:
    config = TopologyConfig(sessions_max=sessions_max, session_ttl_us=TTL_US)
    store, plain, offset = MemoryStore(), Plain(sessions_max), 0
    roster, dirty = Roster(config, store, 0), 0
    for number, (keys, clocks) in enumerate(load):
        counts, before = BatchCounts(), len(plain.gone)
        offsets = range(offset, offset + len(keys))
        taken = roster.take(keys, offsets, np.array(clocks, np.int64), 0, counts)
        slots, names, values, current = plain.take(keys, clocks, offset)
        heap, order = roster.table.heap, roster.table.order
        before_it = [heap.get(s) if heap.start[s] >= 0 else b"" for s in taken.sessions]
        assert (taken.turns, before_it) == (slots, values)
        stay = {names[turn]: turn for turn in np.flatnonzero(taken.stays).tolist()}
        assert stay == current
        assert [order.key_of(slot) for slot in taken.sessions] == names
        assert (taken.clocks, roster.clock_us) == (clocks, clocks[-1])
        gone = plain.gone[before:]
        assert counts.evicted_idle == sum(why == "idle" for _, _, why in gone)
        assert counts.evicted_cap == sum(why == "cap" for _, _, why in gone)
        assert list(order) == list(plain.clocks)
        last = {key: Version(0, at) for key, at, _ in gone}
        assert all(
            roster.table.gone.get(key) == version
            for key, version in last.items()
            if key not in plain.clocks
        )
        states = [b"%d of batch %d" % (slot, number) for slot in range(len(names))]
        plain.states.update({key: states[slot] for key, slot in current.items()})
        heap.write(taken.slots[taken.stays], [states[turn] for turn in current.values()])
        dirty += roster.settle(taken)
        changes = roster.changes
        assert sum(len(value) for value in changes.values() if value is not None) <= dirty
        assert all(roster.state_of(key) == plain.states.get(key) for key in {*keys, *plain.states})
        if gone and len(keys) >= 2 * intake.STRETCH_MIN:
            event("somebody leaves a long batch")
        offset += len(keys)
        if checkpoints:
            store.commit(roster.changes, Watermark("log", 0, offset - 1), offset)
            roster.checkpointed()
            dirty = 0
            assert dict(store.items()) == plain.states
