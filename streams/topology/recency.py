"""Which session was touched least recently: the order in which sessions are evicted.

A doubly linked list in flat arrays indexed by slot, and a hash table of slots (linear probing, 4 bytes
a place). Of a million sessions an OrderedDict takes 155 MB beside the keys and this 33, which is what
keeps the smallest sessions below twice their bytes (`python -m tests.bench.soak`).
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

import numpy as np

_TOUCH = struct.Struct("<BIqq")  # the first fields of session.py's head
TOUCH_BYTES = _TOUCH.size
_ENDS = 0  # the slot that stands before the first session and behind the last; no session's
_PLACES_MIN = 8


class Touch(NamedTuple):
    """When a session was last touched: log epoch and source offset, and the event-time clock then."""

    log_epoch: int
    offset: int
    clock_us: int


def touch_of(value: bytes) -> Touch:
    """The last touch of an encoded session, without decoding the rest."""
    _, log_epoch, offset, clock_us = _TOUCH.unpack_from(value)
    return Touch(log_epoch, offset, clock_us)


class Sessions(Protocol):
    """What the order is built from: every session with the first TOUCH_BYTES of its state, or more."""

    def heads(self) -> Iterator[tuple[bytes, bytes]]: ...


class Recency:
    """Sessions in the order of their last touch, each with the clock at that touch.

    The clock only moves forward, so this is the order of idleness too.
    """

    def __init__(self) -> None:
        self._places = array("I", [_ENDS]) * _PLACES_MIN
        self._mask = _PLACES_MIN - 1
        self._count = 0
        self._keys: list[bytes] = [b""]
        self._clock_us = array("q", [0])
        self._before = array("I", [_ENDS])
        self._after = array("I", [_ENDS])
        self._free = array("I")

    @classmethod
    def of(cls, sessions: Sessions) -> Recency:
        """The order of the sessions in a store: of their last offsets, within and across logs."""
        keys: list[bytes] = []
        epochs, offsets, clocks = array("q"), array("q"), array("q")
        for key, head in sessions.heads():
            _, log_epoch, offset, clock_us = _TOUCH.unpack_from(head)
            keys.append(key)
            epochs.append(log_epoch)
            offsets.append(offset)
            clocks.append(clock_us)
        order = np.lexsort((np.asarray(offsets), np.asarray(epochs))) if keys else ()
        recency = cls()
        for index in order:
            recency.touch(keys[index], clocks[index])
        return recency

    def __len__(self) -> int:
        return self._count

    def touch(self, key: bytes, clock_us: int) -> None:
        """Make `key` the most recent, at this clock."""
        self.touch_all((key,), (clock_us,))

    def touch_all(self, keys: Iterable[bytes], clocks_us: Iterable[int]) -> None:
        """Make each key in turn the most recent, at its clock."""
        before, after, clocks = self._before, self._after, self._clock_us
        known = self._keys
        last = before[_ENDS]
        for key, clock_us in zip(keys, clocks_us, strict=True):
            places, mask = self._places, self._mask  # of another size after a new session
            place = hash(key) & mask
            slot = places[place]
            while slot != _ENDS and known[slot] != key:
                place = (place + 1) & mask
                slot = places[place]
            if slot == _ENDS:
                slot = self._take(key, place)
            elif slot == last:
                clocks[slot] = clock_us
                continue
            else:
                one, other = before[slot], after[slot]
                after[one], before[other] = other, one
            after[last], before[slot] = slot, last
            clocks[slot] = clock_us
            last = slot
        after[last], before[_ENDS] = _ENDS, last

    def oldest(self) -> tuple[bytes, int] | None:
        """The least recent session and the clock at its last touch; None when there is none."""
        slot = self._after[_ENDS]
        return None if slot == _ENDS else (self._keys[slot], self._clock_us[slot])

    def remove(self, key: bytes) -> None:
        """Forget a session. Raises KeyError for one that is not there."""
        slot = self._take_out(key)
        one, other = self._before[slot], self._after[slot]
        self._after[one], self._before[other] = other, one
        self._keys[slot] = b""
        self._free.append(slot)

    def __iter__(self) -> Iterator[bytes]:
        """The sessions, the least recent first."""
        slot = self._after[_ENDS]
        while slot != _ENDS:
            yield self._keys[slot]
            slot = self._after[slot]

    def _take(self, key: bytes, place: int) -> int:
        """A slot for a new session, whose place in the table is this."""
        if self._free:
            slot = self._free.pop()
            self._keys[slot] = key
        else:
            slot = len(self._keys)
            self._keys.append(key)
            self._clock_us.append(0)
            self._before.append(_ENDS)
            self._after.append(_ENDS)
        self._places[place] = slot
        self._count += 1
        if 3 * self._count > 2 * len(self._places):
            self._grow()
        return slot

    def _take_out(self, key: bytes) -> int:
        places, keys, mask = self._places, self._keys, self._mask
        hole = hash(key) & mask
        while keys[places[hole]] != key or places[hole] == _ENDS:
            if places[hole] == _ENDS:
                raise KeyError(key)
            hole = (hole + 1) & mask
        found = places[hole]
        # What stands behind the hole, and would be looked for from before it, moves up.
        place = (hole + 1) & mask
        while (slot := places[place]) != _ENDS:
            if (place - hash(keys[slot])) & mask >= (place - hole) & mask:
                places[hole] = slot
                hole = place
            place = (place + 1) & mask
        places[hole] = _ENDS
        self._count -= 1
        return found

    def _grow(self) -> None:
        places = array("I", [_ENDS]) * (2 * len(self._places))
        mask = len(places) - 1
        for slot in self._places:
            if slot != _ENDS:
                place = hash(self._keys[slot]) & mask
                while places[place] != _ENDS:
                    place = (place + 1) & mask
                places[place] = slot
        self._places, self._mask = places, mask
