"""The sessions of a partition in memory: who was touched when, where every state is, what has changed.

A table either is all there is (the memory store's), or stands before a store that has the states
(RocksDB's): then it holds those that have changed since the last checkpoint, and knows of the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from routekeel.streams.topology.recency import Recency
from routekeel.streams.topology.state_heap import ELSEWHERE, NOWHERE, StateHeap
from routekeel.streams.topology.version import Version

I64 = npt.NDArray[np.int64]
PART_BYTES = 4 * 2**20
"""Of states that are put in place at a time: until then they are there twice."""


class SessionTable:
    """`order` has a slot for every session, `heap` its state there; `gone` is who was evicted since the
    last checkpoint, and has not come again, with the version at which.
    """

    def __init__(self, *, is_all: bool = True) -> None:
        self.is_all = is_all
        self.order = Recency()
        self.heap = StateHeap()
        self.gone: dict[bytes, Version] = {}
        self._changed: list[I64] = []
        self._taken_off: list[int] = []
        self._leaving: list[int] = []
        self._is_kept = True
        """Whether nothing has happened since the last checkpoint."""

    def slots_of(self, keys: Sequence[bytes]) -> npt.NDArray[np.uint32]:
        """Each session's slot; those that are not there get one, without a state."""
        self._is_kept = False
        slots = self.order.slots_of(keys)
        self.heap.widen(self.order.slots)
        if self.gone:
            for key in keys:
                self.gone.pop(key, None)
        return slots

    def touch(self, key: bytes, clock_us: int) -> int:
        """Make a session the most recent; its slot, as by `slots_of`."""
        self._is_kept = False
        slot = self.order.touch(key, clock_us)
        self.heap.widen(self.order.slots)
        self.gone.pop(key, None)
        return slot

    def evict(self, slot: int, version: Version) -> None:
        """The session is no more. Its state can be read until `settle`."""
        self._is_kept = False
        self.gone[self.order.key_of(slot)] = version
        self.order.take_off(slot)
        self._leaving.append(slot)

    def settle(self, changed: I64) -> None:
        """A batch is over; the sessions of these slots had not changed before it and now have."""
        leaving = np.array(self._leaving, np.int64)
        self.heap.drop(leaving)
        self._taken_off += self._leaving
        self._leaving = []
        self._changed.append(changed)
        self.heap.settle()

    def state_of(self, key: bytes) -> bytes | None:
        """A session's state as it is; None for none, b"" for one that only the store has."""
        slot = self.order.slot_of(key)
        start = int(self.heap.start[slot]) if slot else NOWHERE
        if start == NOWHERE:
            return None
        return b"" if start == ELSEWHERE else self.heap.get(slot)

    def kept_of(self, key: bytes) -> bytes | None:
        """A session's state at the last checkpoint."""
        slot = self.order.slot_of(key)
        if not slot or self.heap.kept_start[slot] < 0:
            return next((value for other, value in self._kept_and_gone() if other == key), None)
        return self.heap.get_kept(slot)

    def kept(self) -> Iterator[tuple[bytes, bytes]]:
        """Every session at the last checkpoint."""
        for slot in self._slots():
            if self.heap.kept_start[slot] >= 0:
                yield self.order.key_of(slot), self.heap.get_kept(slot)
        yield from self._kept_and_gone()

    def _kept_and_gone(self) -> Iterator[tuple[bytes, bytes]]:
        for slot in (*self._taken_off, *self._leaving):
            if self.heap.kept_start[slot] >= 0:
                yield self.order.key_of(slot), self.heap.get_kept(slot)

    def _slots(self) -> list[int]:
        """Those of the sessions that are here, in no order."""
        slots = np.ones(self.order.slots, np.bool_)
        slots[0] = False
        slots[self.order.free] = False
        slots[self._taken_off] = slots[self._leaving] = False
        return np.flatnonzero(slots).tolist()

    @property
    def changed(self) -> I64:
        """The slots of those that have changed and are still here, by when they did first."""
        slots: I64 = np.concatenate([np.empty(0, np.int64), *self._changed])
        self._changed = [slots]
        here: I64 = slots[self.heap.start[slots] >= 0]
        return here

    def keep(self) -> None:
        """What has changed is durable."""
        changed, gone = self.changed, np.array(self._taken_off, np.int64)
        self.heap.keep(gone)
        if self.is_all:
            self.heap.keep(changed)
        else:
            self.heap.unload(changed)
        self.order.release(self._taken_off)
        self.gone, self._changed, self._taken_off, self._is_kept = {}, [], [], True
        self.heap.settle()
        self.heap.compact()

    def put(self, changes: Mapping[bytes, bytes | None]) -> None:
        """Have these states, kept, and no session where there is None. Orders nothing."""
        part: list[tuple[bytes, bytes]] = []
        size = 0
        for key, value in changes.items():
            if value is None:
                if slot := self.order.slot_of(key):
                    self.evict(slot, Version(0, 0))
            else:
                part.append((key, value))
                size += len(value)
                if size >= PART_BYTES:
                    self._put(part)
                    part, size = [], 0
        self._put(part)  # tombstones alone are settled with it, too
        self.keep()

    def _put(self, part: list[tuple[bytes, bytes]]) -> None:
        slots = self.slots_of([key for key, _ in part]).astype(np.int64)
        self.heap.write(slots, [value for _, value in part])
        self.settle(slots)

    def roll_back(self) -> None:
        """Be as at the last checkpoint again, in no order."""
        if self._is_kept:
            return
        self.settle(np.empty(0, np.int64))
        here = np.array(self._slots(), np.int64)
        new = here[self.heap.kept_start[here] == NOWHERE].tolist()
        for slot in new:
            self.order.take_off(slot)
        for slot in self._taken_off:
            if self.heap.kept_start[slot] == NOWHERE:
                new.append(slot)
            else:
                self.order.put_back(slot)
        self.heap.restore(np.concatenate((here, np.array(self._taken_off, np.int64))))
        self.order.release(new)
        self.gone, self._changed, self._taken_off, self._is_kept = {}, [], [], True
        self.heap.settle()

    def begin(self, heads: Mapping[bytes, bytes] | None = None) -> None:
        """Take the order of the sessions from what was kept, or from the heads that a store has."""
        if heads is None:
            self.roll_back()
            slots = self._slots()
            self.order.begin(slots, map(self.heap.get_kept, slots))
        else:
            slots = self.slots_of(list(heads)).tolist()
            self.heap.start[slots] = self.heap.kept_start[slots] = ELSEWHERE
            self.order.begin(slots, heads.values())
