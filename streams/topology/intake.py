"""The order of things: who is touched when, on which clock, and who is evicted because of it.

One pass over a batch's accepted records in log order, before anything is computed. It gives every
record its slot, that is its session's turn between two evictions, and the clock at that record.
Everything here depends on the log alone, so a replay evicts at the same record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from routekeel.streams.topology.changelog import StateStore, Version
from routekeel.streams.topology.config import TopologyConfig
from routekeel.streams.topology.recency import Recency
from routekeel.streams.topology.records import BatchCounts

I64 = npt.NDArray[np.int64]
STRETCH_MIN = 32
"""From so many records on it is worth while to take them in all at once."""


@dataclass(slots=True)
class Intake:
    """A batch's sessions. Slots are numbered in the order in which they appear.

    `keys` and `values` (the state before the batch, b"" for a new session) are per slot; `slots` and
    `clocks` per accepted record; `current` says which slot is a key's last, unless it was evicted.
    """

    keys: list[bytes] = field(default_factory=list)
    values: list[bytes] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)
    clocks: list[int] = field(default_factory=list)
    current: dict[bytes, int] = field(default_factory=dict)


class Roster:
    """A partition's sessions by recency, its clock, and the changes since the last checkpoint."""

    def __init__(self, config: TopologyConfig, store: StateStore, clock_us: int) -> None:
        self._config = config
        self._store = store
        self._recency = Recency.of(store)
        self.clock_us = clock_us
        self.changes: dict[bytes, bytes | None] = {}
        self.evicted_at: dict[bytes, Version] = {}

    def __len__(self) -> int:
        return len(self._recency)

    def state_of(self, key: bytes) -> bytes | None:
        """A session's encoded state as of the last record applied."""
        if key in self.changes:
            return self.changes[key]
        return self._store.get(key)

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
        crowded = len(self._recency) + len(set(keys)) > self._config.sessions_max
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
        return intake

    def _nobody_leaves(self, clocks: I64, crowded: bool) -> int:
        """At how many records to come, at these clocks, no session can become idle or be one too many."""
        oldest = self._recency.oldest()
        idle_since = int(clocks[0]) if oldest is None else min(oldest[1], int(clocks[0]))
        awake = int(np.searchsorted(clocks, idle_since + self._config.session_ttl_us, side="right"))
        return min(awake, self._config.sessions_max - len(self._recency)) if crowded else awake

    def _take_stretch(self, intake: Intake, keys: Sequence[bytes], clocks: I64) -> None:
        """Where nobody leaves only last touches count, and all is done for all at once."""
        current = intake.current
        new = [key for key in dict.fromkeys(keys) if key not in current]
        current.update(zip(new, range(len(intake.keys), len(intake.keys) + len(new)), strict=True))
        intake.keys += new
        intake.values += self._states_of(new)
        slots = list(map(current.__getitem__, keys))
        intake.slots += slots
        last = np.full(len(intake.keys), -1, np.int64)
        last[slots] = np.arange(len(keys))  # of several the last stays
        last = np.sort(last[last >= 0])
        self._recency.touch_all([keys[index] for index in last.tolist()], clocks[last])

    def _take_one(
        self, intake: Intake, key: bytes, clock: int, version: Version, counts: BatchCounts
    ) -> None:
        recency = self._recency
        deadline = clock - self._config.session_ttl_us
        while (oldest := recency.oldest()) and oldest[1] < deadline:
            self._evict(oldest[0], version, intake.current)
            counts.evicted_idle += 1
        slot = intake.current.get(key)
        if slot is None:
            slot = intake.current[key] = len(intake.keys)
            intake.keys.append(key)
            intake.values.append(self.state_of(key) or b"")
        intake.slots.append(slot)
        recency.touch(key, clock)
        if len(recency) > self._config.sessions_max and (oldest := recency.oldest()):
            self._evict(oldest[0], version, intake.current)
            counts.evicted_cap += 1

    def clocks_of(self, times_us: I64, log_times_us: I64, counts: BatchCounts) -> I64:
        """The clock at each record: event time drives it, but a clock far ahead of the log's does not."""
        ceiling = log_times_us + self._config.event_time_skew_us
        counts.event_time_clamped += int((times_us > ceiling).sum())
        held = np.minimum(times_us, ceiling)
        return np.maximum(np.maximum.accumulate(held), self.clock_us) if len(held) else held

    def settle(self, intake: Intake, states: Sequence[bytes]) -> int:
        """Make the slots' last states the sessions' values; returns by how many bytes changes grew."""
        keys, values = intake.current.keys(), [states[slot] for slot in intake.current.values()]
        before = filter(None, map(self.changes.get, keys))
        grown = sum(map(len, values)) - sum(map(len, before))
        self.changes.update(zip(keys, values, strict=True))
        return grown

    def checkpointed(self) -> None:
        """The changes are in the store."""
        self.changes, self.evicted_at = {}, {}

    def _states_of(self, keys: Sequence[bytes]) -> list[bytes]:
        """`state_of` each, b"" for none."""
        changes = self.changes
        values = list(map(changes.get, keys))
        # None is one that has not changed, or that was evicted.
        asked = [i for i, value in enumerate(values) if value is None and keys[i] not in changes]
        if asked:
            for i, value in zip(asked, self._store.get_all([keys[i] for i in asked]), strict=True):
                values[i] = value
        return [value or b"" for value in values]

    def _evict(self, key: bytes, version: Version, current: dict[bytes, int]) -> None:
        self._recency.remove(key)
        current.pop(key, None)
        self.changes[key] = None
        self.evicted_at[key] = version
