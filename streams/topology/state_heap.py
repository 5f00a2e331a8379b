"""The states of a partition's sessions end to end in one block of memory, each at a place of its own.

A session is a slot (recency.py), its state a stretch of bytes. Between two checkpoints a session that
changed has two places: one for its state as it is, and the one that was kept, which the store stands
for. A place that is left is used again only after `settle`, so that within a batch an old state can be
read until the end. Of a million small sessions a dict of bytes objects costs 2 µs more an event: every
state was made as an object, looked up three times, joined and counted.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from routekeel.operators.step import compiled_kernel_exists

I64 = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
NOWHERE, ELSEWHERE = -1, -2
"""No state; one that only the store has."""
GRAIN = 64
ROOM_MIN = 2**16
WASTE_MIN = 16 * 2**20
WASTE_SHARE = 4
"""Places are moved together when a quarter of the memory is left places, and WASTE_MIN more."""
_SLOTS_MIN = 64
_UNUSED = np.array([NOWHERE, 0, NOWHERE, 0], np.int64)


class StateHeap:
    """`start` and `size` by slot say where a state is, `kept_start` and `kept_size` where it was kept.

    No array over the memory may be held while states are placed: memory that is looked at cannot grow.
    """

    def __init__(self) -> None:
        self._memory = _memory(ROOM_MIN)
        self._end = 0
        self._free: dict[int, list[I64]] = {}
        self._left: list[tuple[I64, I64]] = []
        self.free_bytes = 0
        self._set_columns(np.tile(_UNUSED, (_SLOTS_MIN, 1)))

    def _set_columns(self, columns: I64) -> None:
        # A slot's numbers side by side: who looks at one of them looks at the others, too.
        self._columns = columns
        self.start, self.size, self.kept_start, self.kept_size = columns.T

    def widen(self, slots: int) -> None:
        """Have so many slots, at least."""
        more = slots - len(self.start)
        if more > 0:
            more = max(more, _SLOTS_MIN, len(self.start) // 8)
            self._set_columns(np.concatenate((self._columns, np.tile(_UNUSED, (more, 1)))))

    def view(self) -> Bytes:
        """The memory as uint8, for the moment."""
        return np.frombuffer(self._memory, np.uint8)

    def is_kept(self, slots: I64) -> npt.NDArray[np.bool_]:
        """Which of the slots have not changed since they were kept."""
        kept: npt.NDArray[np.bool_] = self.start[slots] == self.kept_start[slots]
        return kept

    def get(self, slot: int) -> bytes:
        """The state of a slot that has one here."""
        return self._read(int(self.start[slot]), int(self.size[slot]))

    def get_kept(self, slot: int) -> bytes:
        """The state that was kept."""
        return self._read(int(self.kept_start[slot]), int(self.kept_size[slot]))

    def _read(self, start: int, size: int) -> bytes:
        assert start >= 0, "the slot has no state here"
        return self._memory[start : start + size]

    def place(self, slots: I64, sizes: I64) -> I64:
        """Where states of these sizes (int64[n], bytes) for these slots, no two alike, are to be written."""
        starts: I64 = self.start[slots]
        before = self.size[slots]
        own = (starts >= 0) & (starts != self.kept_start[slots])
        new = ~(own & (_room(before) == _room(sizes)))
        self._leave(starts[own & new], before[own & new])
        starts[new] = self._allocate(_room(sizes[new]))
        self.start[slots], self.size[slots] = starts, sizes
        return starts

    def write(self, slots: I64, states: Sequence[bytes]) -> None:
        """Place these states."""
        sizes = np.fromiter(map(len, states), np.int64, len(states))
        self._fill(self.place(slots, sizes), sizes, states)

    def load(self, slots: I64, states: Sequence[bytes]) -> None:
        """Have states here that the store has, as they were kept."""
        self.write(slots, states)
        self.kept_start[slots], self.kept_size[slots] = self.start[slots], self.size[slots]

    def _fill(self, starts: I64, sizes: I64, states: Sequence[bytes]) -> None:
        joined = np.frombuffer(b"".join(states), np.uint8)
        copy_all(joined, np.cumsum(sizes) - sizes, sizes, self.view(), starts)

    def drop(self, slots: I64) -> None:
        """These sessions are no more; what was kept of them still is."""
        starts, kept = self.start[slots], self.kept_start[slots]
        own = (starts >= 0) & (starts != kept)
        self._leave(starts[own], self.size[slots][own])
        self.start[slots] = NOWHERE

    def keep(self, slots: I64) -> None:
        """The states of these slots are kept as they are, or nothing where there is none."""
        kept = self.kept_start[slots]
        moved = (kept >= 0) & (kept != self.start[slots])
        self._leave(kept[moved], self.kept_size[slots][moved])
        self.kept_start[slots], self.kept_size[slots] = self.start[slots], self.size[slots]

    def restore(self, slots: I64) -> None:
        """The states of these slots are what was kept."""
        self.drop(slots)
        self.start[slots], self.size[slots] = self.kept_start[slots], self.kept_size[slots]

    def unload(self, slots: I64) -> None:
        """The store alone has these states."""
        self.keep(slots)
        self._leave(self.start[slots], self.size[slots])
        self.start[slots] = self.kept_start[slots] = ELSEWHERE

    def gather(self, slots: I64) -> tuple[Bytes, I64]:
        """(the states of these slots end to end, int64[n] where each ends)."""
        sizes = self.size[slots]
        ends = np.cumsum(sizes)
        data = np.empty(int(ends[-1]) if len(ends) else 0, np.uint8)
        copy_all(self.view(), self.start[slots], sizes, data, ends - sizes)
        return data, ends

    def settle(self) -> None:
        """Let places that were left be used again."""
        for starts, sizes in self._left:
            rooms = _room(sizes)
            for room in np.unique(rooms).tolist():
                self._free.setdefault(room, []).append(starts[rooms == room])
            self.free_bytes += int(rooms.sum())
        self._left = []

    def compact(self) -> None:
        """Move places together where too much is left between them; every state must be a kept one."""
        if self.free_bytes < WASTE_MIN + self._end // WASTE_SHARE:
            return
        slots = np.flatnonzero(self.start >= 0)
        slots = slots[np.argsort(self.start[slots])]
        starts, sizes = self.start[slots], self.size[slots]
        ends = np.cumsum(_room(sizes))
        to = ends - _room(sizes)
        for start, size, place in zip(starts.tolist(), sizes.tolist(), to.tolist(), strict=True):
            if place != start:
                self._memory.move(place, start, size)
        self.start[slots] = self.kept_start[slots] = to
        self._end = int(ends[-1]) if len(ends) else 0
        self._free, self.free_bytes = {}, 0
        self._resize(max(ROOM_MIN, self._end))

    def _leave(self, starts: I64, sizes: I64) -> None:
        if len(starts):
            self._left.append((starts, sizes))

    def _allocate(self, rooms: I64) -> I64:
        starts = np.empty(len(rooms), np.int64)
        for room in np.unique(rooms).tolist():
            wanted = np.flatnonzero(rooms == room)
            found = self._take(room, len(wanted))
            starts[wanted[: len(found)]] = found
            rest = wanted[len(found) :]
            starts[rest] = self._end + room * np.arange(len(rest))
            self._end += room * len(rest)
        if self._end > len(self._memory):
            self._resize(max(self._end, 2 * len(self._memory)))  # what is not used is not resident
        return starts

    def _take(self, room: int, count: int) -> I64:
        parts: list[I64] = [np.empty(0, np.int64)]
        stack = self._free.get(room, [])
        while stack and count:
            last = stack.pop()
            if len(last) > count:
                stack.append(last[:-count])
                last = last[-count:]
            parts.append(last)
            count -= len(last)
            self.free_bytes -= room * len(last)
        return np.concatenate(parts)

    def _resize(self, size: int) -> None:
        try:
            self._memory.resize(size)
        except (SystemError, OSError):  # where the system cannot (macOS)
            larger = _memory(size)
            larger[: min(size, len(self._memory))] = self._memory[: min(size, len(self._memory))]
            self._memory.close()
            self._memory = larger


def copy_all(source: Bytes, starts: I64, sizes: I64, target: Bytes, to: I64) -> None:
    """target[to[i] : to[i] + sizes[i]] = source[starts[i] : starts[i] + sizes[i]], none overlapping."""
    if compiled_kernel_exists():
        from routekeel.streams.wire.spans import copy_spans  # without numba it cannot be imported

        copy_spans(source, starts, sizes, target, to)
        return
    for start, size, place in zip(starts.tolist(), sizes.tolist(), to.tolist(), strict=True):
        target[place : place + size] = source[start : start + size]


def _memory(size: int) -> mmap.mmap:
    # Private: a shared mapping keeps the size that it was made with, however it is resized.
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(
        mmap, "MADV_HUGEPAGE"
    ):  # states lie anywhere, and finding a page costs as much as reading
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def _room(sizes: I64) -> I64:
    rooms: I64 = (np.maximum(sizes, 1) + (GRAIN - 1)) & -GRAIN
    return rooms
