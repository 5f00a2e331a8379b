"""The order of things: who is touched when, on which clock, and who is evicted because of it.

One pass over a batch's accepted records in log order, before anything is computed. It gives every
record its turn, that is its session between two evictions, and the clock at that record.
Everything here depends on the log alone, so a replay evicts at the same record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from routekeel.streams.topology.changelog import Changes, StateStore
from routekeel.streams.topology.config import TopologyConfig
from routekeel.streams.topology.records import BatchCounts
from routekeel.streams.topology.session_table import SessionTable
from routekeel.streams.topology.state_heap import ELSEWHERE
from routekeel.streams.topology.version import Version

I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
NO_TURN = -1
STRETCH_MIN = 32
"""From so many records on it is worth while to take them in all at once."""


@dataclass(slots=True)
class Intake:
    """A batch's sessions by turn: a session's turn goes on until it is evicted.

    Turns are numbered in the order in which they begin. `sessions` are their slots in the table, `turns`
    and `clocks` (µs) per accepted record, `over` the turns that an eviction ended. `take` adds `slots`, the
    sessions as an array, `stays`, whose sessions are still there, `was_kept`, which of them had not changed
    since the last checkpoint, and `bytes_before`, what the others had as changes.
    """

    sessions: list[int] = field(default_factory=list)
    turns: list[int] = field(default_factory=list)
    clocks: list[int] = field(default_factory=list)
    over: list[int] = field(default_factory=list)
    slots: I64 = field(default_factory=lambda: np.empty(0, np.int64))
    stays: Bools = field(default_factory=lambda: np.empty(0, np.bool_))
    was_kept: Bools = field(default_factory=lambda: np.empty(0, np.bool_))
    bytes_before: int = 0


class Roster:
    """A partition's sessions by recency, its clock, and the changes since the last checkpoint."""

    def __init__(self, config: TopologyConfig, store: StateStore, clock_us: int) -> None:
        self._config = config
        self._store = store
        if store.table is None:
            self.table = SessionTable(is_all=False)
            self.table.begin(dict(store.heads()))
        else:
            self.table = store.table
            self.table.begin()
        self.clock_us = clock_us
        self._turn_of: npt.NDArray[np.int32] = np.full(self.table.order.slots, NO_TURN, np.int32)
        """By slot: its session's turn in the batch that is being taken in."""

    def __len__(self) -> int:
        return len(self.table.order)

    @property
    def changes(self) -> Changes:
        """What has changed since the last checkpoint."""
        return Changes(self.table)

    def state_of(self, key: bytes) -> bytes | None:
        """A session's encoded state as of the last record applied."""
        state = self.table.state_of(key)
        return self._store.get(key) if state == b"" else state

    def take(
        self,
        keys: Sequence[bytes],
        offsets: Sequence[int],
        clocks: I64,
        log_epoch: int,
        counts: BatchCounts,
    ) -> Intake:
        """Take a batch's accepted records in; `clocks` is the clock at each (see `clocks_of`)."""
        intake, start = Intake(clocks=clocks.tolist()), 0
        crowded = len(self) + len(set(keys)) > self._config.sessions_max
        while start < len(keys):
            end = start + self._nobody_leaves(clocks[start:], crowded)
            if end - start >= STRETCH_MIN:
                self._take_stretch(intake, keys[start:end], clocks[start:end])
            else:
                end = min(len(keys), start + STRETCH_MIN)
                for index in range(start, end):
                    version = Version(log_epoch, offsets[index])
                    self._take_one(intake, keys[index], intake.clocks[index], version, counts)
            start = end
        if keys:
            self.clock_us = intake.clocks[-1]
        self._finish(intake)
        return intake

    def _nobody_leaves(self, clocks: I64, crowded: bool) -> int:
        """At how many records to come, at these clocks, no session can become idle or be one too many."""
        oldest = self.table.order.oldest()
        idle_since = int(clocks[0]) if oldest is None else min(oldest[1], int(clocks[0]))
        awake = int(np.searchsorted(clocks, idle_since + self._config.session_ttl_us, side="right"))
        return min(awake, self._config.sessions_max - len(self)) if crowded else awake

    def _take_stretch(self, intake: Intake, keys: Sequence[bytes], clocks: I64) -> None:
        """Where nobody leaves only last touches count, and all is done for all at once."""
        slots = self.table.slots_of(keys)
        self._widen()
        turns = self._turn_of[slots]
        unknown = slots[turns == NO_TURN]
        if len(unknown):
            places = np.arange(len(unknown), dtype=np.int32)
            self._turn_of[unknown[::-1]] = places[::-1]  # of several the first stays
            new = unknown[self._turn_of[unknown] == places]
            known = len(intake.sessions)
            self._turn_of[new] = np.arange(known, known + len(new), dtype=np.int32)
            intake.sessions += new.tolist()
            turns = self._turn_of[slots]
        intake.turns += turns.tolist()
        last = np.full(len(intake.sessions), -1, np.int64)
        last[turns] = np.arange(len(keys))  # of several the last stays
        last = np.sort(last[last >= 0])
        self.table.order.touch_slots(slots[last], clocks[last])

    def _take_one(
        self, intake: Intake, key: bytes, clock: int, version: Version, counts: BatchCounts
    ) -> None:
        order = self.table.order
        deadline = clock - self._config.session_ttl_us
        while (oldest := order.oldest()) and oldest[1] < deadline:
            self._evict(intake, oldest[0], version)
            counts.evicted_idle += 1
        slot = self.table.touch(key, clock)
        self._widen()
        turn = int(self._turn_of[slot])
        if turn == NO_TURN:
            turn = self._turn_of[slot] = len(intake.sessions)
            intake.sessions.append(slot)
        intake.turns.append(turn)
        if len(self) > self._config.sessions_max and (oldest := order.oldest()):
            self._evict(intake, oldest[0], version)
            counts.evicted_cap += 1

    def _evict(self, intake: Intake, slot: int, version: Version) -> None:
        turn = int(self._turn_of[slot])
        if turn != NO_TURN:
            intake.over.append(turn)
            self._turn_of[slot] = NO_TURN
        self.table.evict(slot, version)

    def _finish(self, intake: Intake) -> None:
        """Every turn has begun: load what only the store has, note what has changed before."""
        heap = self.table.heap
        intake.slots = slots = np.array(intake.sessions, np.int64)
        self._turn_of[slots] = NO_TURN
        intake.stays = np.ones(len(slots), np.bool_)
        intake.stays[intake.over] = False
        away = slots[heap.start[slots] == ELSEWHERE]
        if len(away):
            values = self._store.get_all(self.table.order.keys_of(away.tolist()))
            heap.load(away, [value or b"" for value in values])
        intake.was_kept = heap.is_kept(slots)
        intake.bytes_before = int(heap.size[slots[intake.stays & ~intake.was_kept]].sum())

    def _widen(self) -> None:
        more = self.table.order.slots - len(self._turn_of)
        if more > 0:
            wider = np.full(more + len(self._turn_of) // 8, NO_TURN, np.int32)
            self._turn_of = np.concatenate((self._turn_of, wider))

    def clocks_of(self, times_us: I64, log_times_us: I64, counts: BatchCounts) -> I64:
        """The clock at each record: event time drives it, but a clock far ahead of the log's does not."""
        ceiling = log_times_us + self._config.event_time_skew_us
        counts.event_time_clamped += int((times_us > ceiling).sum())
        held = np.minimum(times_us, ceiling)
        return np.maximum(np.maximum.accumulate(held), self.clock_us) if len(held) else held

    def settle(self, intake: Intake) -> int:
        """The batch's states are in the table; returns by how many bytes the changes grew."""
        stayed = intake.slots[intake.stays]
        self.table.settle(intake.slots[intake.stays & intake.was_kept])
        return int(self.table.heap.size[stayed].sum()) - intake.bytes_before

    def checkpointed(self) -> None:
        """The changes are in the store."""
        if self.table is not self._store.table:
            self.table.keep()
