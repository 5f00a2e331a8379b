"""Which session was touched least recently: the order in which sessions are evicted.

A queue of touches, of which a session's last one counts and the others are passed over, and a hash
table of sessions (linear probing, 4 bytes a place), all in flat arrays: a batch's sessions are found
and touched in a few vector operations. Of a million sessions an OrderedDict takes 155 MB beside the
keys and this about 40, which is what keeps the smallest sessions below twice their bytes
(`python -m tests.bench.soak`).
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

_TOUCH = struct.Struct("<BIqq")  # the first fields of session.py's head
TOUCH_BYTES = _TOUCH.size
_NONE = 0  # the slot that is no session's, and the place in the queue that is nobody's
_LOW = 2**32 - 1
_ROOM_MIN = 64
_LOOK = 256

U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]


class Recency:
    """Sessions in the order of their last touch, each with the clock at that touch.

    The clock only moves forward, so this is the order of idleness too. A session has a slot, a small
    number above 0, for as long as it is here, and until `release` gives that to another one.
    """

    def __init__(self) -> None:
        self._count = 0
        # By slot: the session's key, the low bits of its hash, its last touch's clock and place in the queue.
        self._keys: list[bytes] = [b""]
        self._hashes: U32 = np.zeros(_ROOM_MIN, np.uint32)
        self._clock_us: I64 = np.zeros(_ROOM_MIN, np.int64)
        self._touched: U32 = np.zeros(_ROOM_MIN, np.uint32)
        self._free: list[int] = []
        # By place in the hash table: a slot.
        self._places: U32 = np.zeros(_ROOM_MIN, np.uint32)
        # By place in the queue: the slot that was touched. What counts lies between `_begin` and `_end`.
        self._queue: U32 = np.zeros(_ROOM_MIN, np.uint32)
        self._begin = self._end = 1

    def __len__(self) -> int:
        return self._count

    @property
    def slots(self) -> int:
        """One more than the highest slot so far."""
        return len(self._keys)

    @property
    def free(self) -> list[int]:
        """The slots below that which nobody has."""
        return self._free

    def key_of(self, slot: int) -> bytes:
        """The key of a slot's session, also when it was taken off and the slot not released."""
        return self._keys[slot]

    def keys_of(self, slots: Iterable[int]) -> list[bytes]:
        """`key_of` each."""
        keys = self._keys
        return [keys[slot] for slot in slots]

    def begin(self, slots: Sequence[int], heads: Iterable[bytes]) -> None:
        """Take the order of these sessions from their states, or the first TOUCH_BYTES of them: that of
        their last offsets, within and across logs. They are the only ones.
        """
        epochs, offsets, clocks = array("q"), array("q"), array("q")
        for head in heads:
            _, log_epoch, offset, clock_us = _TOUCH.unpack_from(head)
            epochs.append(log_epoch)
            offsets.append(offset)
            clocks.append(clock_us)
        order = np.lexsort((np.asarray(offsets), np.asarray(epochs)))
        self._begin = self._end = 1
        self._touched[:] = _NONE
        self.touch_slots(np.asarray(slots, np.int64)[order], np.asarray(clocks)[order])

    def touch(self, key: bytes, clock_us: int) -> int:
        """Make `key` the most recent, at this clock; its slot."""
        slot = self.slot_of(key) or self._take(key)
        if self._end == len(self._queue):
            self._make_room(1)
        self._queue[self._end] = slot
        self._touched[slot] = self._end
        self._clock_us[slot] = clock_us
        self._end += 1
        return slot

    def touch_slots(self, slots: npt.NDArray[Any], clocks_us: npt.ArrayLike) -> None:
        """Make each slot's session in turn the most recent, at its clock (int64[len(slots)], µs)."""
        if self._end + len(slots) > len(self._queue):
            self._make_room(len(slots))
        start, self._end = self._end, self._end + len(slots)
        self._queue[start : self._end] = slots
        # Of a session that is there twice the later touch is the one that stays.
        self._touched[slots] = np.arange(start, self._end, dtype=np.uint32)
        self._clock_us[slots] = clocks_us

    def oldest(self) -> tuple[int, int] | None:
        """The slot of the least recent session and the clock at its last touch; None when there is none."""
        if not self._count:
            return None
        slot = int(self._queue[self._begin])
        if self._touched[slot] == self._begin:
            return slot, int(self._clock_us[slot])
        while True:
            end = min(self._end, self._begin + _LOOK)
            ahead = self._queue[self._begin : end]
            last = self._touched[ahead] == np.arange(self._begin, end, dtype=np.uint32)
            found = int(last.argmax())
            if last[found]:
                self._begin += found
                slot = int(ahead[found])
                return slot, int(self._clock_us[slot])
            self._begin = end

    def take_off(self, slot: int) -> None:
        """Forget the session of a slot, which stays its until `release`. Raises KeyError for none."""
        self._take_out(self._keys[slot])
        self._touched[slot] = _NONE

    def put_back(self, slot: int) -> None:
        """Know the session of a slot again that was taken off; `begin` gives it its place in the order."""
        self._count += 1
        if 3 * self._count > 2 * len(self._places):
            self._grow()
        self._settle(slot)

    def release(self, slots: Iterable[int]) -> None:
        """Others may have these slots, whose sessions were taken off."""
        for slot in slots:
            self._keys[slot] = b""
            self._free.append(slot)

    def __iter__(self) -> Iterator[bytes]:
        """The sessions, the least recent first."""
        for slot in self._in_order().tolist():
            yield self._keys[slot]

    def _in_order(self) -> U32:
        queue = self._queue[self._begin : self._end]
        last = self._touched[queue] == np.arange(self._begin, self._end, dtype=np.uint32)
        return np.compress(last, queue)

    def _make_room(self, more: int) -> None:
        """Leave out the touches that do not count any more; room for half as many as do, and `more`."""
        order = self._in_order()
        self._queue = np.zeros(1 + len(order) * 3 // 2 + more + _ROOM_MIN, np.uint32)
        self._begin, self._end = 1, 1 + len(order)
        self._queue[1 : self._end] = order
        self._touched[order] = np.arange(1, self._end, dtype=np.uint32)

    def slots_of(self, keys: Sequence[bytes]) -> U32:
        """uint32[len(keys)]: each session's slot; those that are not there get one."""
        low = (np.fromiter(map(hash, keys), np.int64, len(keys)) & _LOW).astype(np.uint32)
        mask = np.uint32(len(self._places) - 1)
        place = low & mask
        slots: U32 = self._places[place]
        astray = np.flatnonzero((slots != _NONE) & (self._hashes[slots] != low))
        while len(astray):
            place[astray] = (place[astray] + np.uint32(1)) & mask
            slots[astray] = met = self._places[place[astray]]
            astray = astray[(met != _NONE) & (self._hashes[met] != low[astray])]
        known = self._keys
        found = [known[slot] for slot in slots.tolist()]
        if found != (keys if isinstance(keys, list) else list(keys)):
            # New ones, and those whose hash is another's: one after the other.
            for index, (one, key) in enumerate(zip(found, keys, strict=True)):
                if one != key:
                    slots[index] = self.slot_of(key) or self._take(key)
        return slots

    def slot_of(self, key: bytes) -> int:
        """The session's slot, 0 for one that is not there."""
        return int(self._places[self._place_of(key)])

    def _place_of(self, key: bytes) -> int:
        """Where in the hash table the session stands, or would."""
        places, keys, mask = self._places, self._keys, len(self._places) - 1
        place = hash(key) & mask
        while (slot := places[place]) != _NONE and keys[slot] != key:
            place = (place + 1) & mask
        return place

    def _take(self, key: bytes) -> int:
        """A slot for a new session, and its place in the table."""
        self._count += 1
        if 3 * self._count > 2 * len(self._places):
            self._grow()
        if self._free:
            slot = self._free.pop()
            self._keys[slot] = key
        else:
            slot = len(self._keys)
            self._keys.append(key)
            if slot == len(self._hashes):
                self._widen()
        self._hashes[slot] = hash(key) & _LOW
        self._settle(slot)
        return slot

    def _settle(self, slot: int) -> None:
        places, mask = self._places, len(self._places) - 1
        place = int(self._hashes[slot]) & mask
        while places[place] != _NONE:
            place = (place + 1) & mask
        places[place] = slot

    def _take_out(self, key: bytes) -> int:
        places, mask = self._places, len(self._places) - 1
        hole = self._place_of(key)
        found = int(places[hole])
        if found == _NONE:
            raise KeyError(key)
        # What stands behind the hole, and would be looked for from before it, moves up.
        place = (hole + 1) & mask
        while (slot := int(places[place])) != _NONE:
            if (place - int(self._hashes[slot])) & mask >= (place - hole) & mask:
                places[hole] = slot
                hole = place
            place = (place + 1) & mask
        places[hole] = _NONE
        self._count -= 1
        return found

    def _grow(self) -> None:
        taken = self._places[self._places != _NONE]
        self._places = np.zeros(2 * len(self._places), np.uint32)
        for slot in taken.tolist():
            self._settle(slot)

    def _widen(self) -> None:
        more = _ROOM_MIN + len(self._hashes) // 8
        self._hashes, self._clock_us, self._touched = (
            np.concatenate((column, np.zeros(more, column.dtype)))
            for column in (self._hashes, self._clock_us, self._touched)
        )
