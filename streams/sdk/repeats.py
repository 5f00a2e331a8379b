"""Tells a result's first occurrence in the log from its repeats.

A worker that crashed sends again what followed its last checkpoint, with the same source offsets.
In one partition offsets ascend but for that, so the highest one seen tells nearly all repeats.
Nearly: a batch that failed while the next one went through leaves a hole that is filled after the
restart, from below. So the holes are remembered too, as ranges; a chunk in the dead letters leaves
one that is never filled, hence the bound.
"""

from __future__ import annotations

from bisect import bisect_right

HOLES_MAX = 1024


class SeenOffsets:
    """The source offsets seen of one topic id and partition. What lies below the first is a repeat.

    >>> seen = SeenOffsets()
    >>> [offset for offset in (5, 6, 9, 6, 8, 8, 10, 4) if seen.is_new(offset)]
    [5, 6, 9, 8, 10]
    """

    __slots__ = ("_ends", "_high", "_starts")

    def __init__(self) -> None:
        self._high = -1
        # Holes as half-open ranges, ascending.
        self._starts: list[int] = []
        self._ends: list[int] = []

    def is_new(self, offset: int) -> bool:
        """Whether the offset is seen for the first time; it is seen from now on.

        Beyond HOLES_MAX holes the lowest is forgotten: what would fill it counts as a repeat.
        """
        high = self._high
        if offset > high:
            if high >= 0 and offset > high + 1:
                self._starts.append(high + 1)
                self._ends.append(offset)
                if len(self._starts) > HOLES_MAX:
                    del self._starts[0], self._ends[0]
            self._high = offset
            return True
        hole = bisect_right(self._starts, offset) - 1
        if hole < 0 or offset >= self._ends[hole]:
            return False
        self._fill(hole, offset)
        return True

    def _fill(self, hole: int, offset: int) -> None:
        start, end = self._starts[hole], self._ends[hole]
        left = [(a, b) for a, b in ((start, offset), (offset + 1, end)) if a < b]
        self._starts[hole : hole + 1] = [a for a, _ in left]
        self._ends[hole : hole + 1] = [b for _, b in left]
