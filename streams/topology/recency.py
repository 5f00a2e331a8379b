"""Which session was touched least recently: the order in which sessions are evicted.

A doubly linked list in flat arrays, indexed by slot. An OrderedDict does the same in twice the memory
(a node and an int object per session), and at a million sessions that is what memory goes to.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np

_TOUCH = struct.Struct("<BIqq")  # the first fields of session.py's head
TOUCH_BYTES = _TOUCH.size
_ENDS = 0  # the slot that stands before the first session and behind the last


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
        self._slots: dict[bytes, int] = {}
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
        return len(self._slots)

    def touch(self, key: bytes, clock_us: int) -> None:
        """Make `key` the most recent, at this clock."""
        before, after = self._before, self._after
        slot = self._slots.get(key)
        if slot is None:
            slot = self._take(key)
        else:
            one, other = before[slot], after[slot]
            after[one], before[other] = other, one
        last = before[_ENDS]
        after[last], before[slot] = slot, last
        after[slot], before[_ENDS] = _ENDS, slot
        self._clock_us[slot] = clock_us

    def oldest(self) -> tuple[bytes, int] | None:
        """The least recent session and the clock at its last touch; None when there is none."""
        slot = self._after[_ENDS]
        return None if slot == _ENDS else (self._keys[slot], self._clock_us[slot])

    def remove(self, key: bytes) -> None:
        """Forget a session. Raises KeyError for one that is not there."""
        slot = self._slots.pop(key)
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

    def _take(self, key: bytes) -> int:
        if self._free:
            slot = self._free.pop()
            self._keys[slot] = key
        else:
            slot = len(self._keys)
            self._keys.append(key)
            self._clock_us.append(0)
            self._before.append(_ENDS)
            self._after.append(_ENDS)
        self._slots[key] = slot
        return slot
