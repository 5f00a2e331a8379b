"""Feeds a store from its changelog, and goes on where it stopped: at a takeover or as a standby.

Theory of operation. A writer's checkpoint holds every change since a watermark that stood in the log
before it, so the log up to and including a watermark M determines the whole state at M. Therefore:
(a) a record below the watermark that the store has adds nothing when it is read: it is a late
writer's, and must not bring back what was evicted or overwritten since; (b) records at or above it are
kept as pending until a watermark covers them, across reads, since a later writer's watermark may
cover some of a torn tail; (c) a store may claim a position only below the first pending record, so
that whoever starts from the store alone reads the torn tail again; (d) a key whose newest record was
read after the watermark that covers it must be written again by the owner: compaction would leave that
one alone, and who reads it then finds it below the watermark, too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain
from operator import itemgetter
from typing import NamedTuple

from routekeel.streams.topology.changelog import (
    VERSION_HEADER,
    ChangelogRecord,
    StateStore,
    header_version,
    session_version,
)
from routekeel.streams.topology.watermark import WATERMARK_KEY, Watermark

Headers = Sequence[tuple[str, bytes | None]] | None
LazyHeaders = Headers | Callable[[], Headers]
"""Few records have headers, and asking a message for them costs as much as the rest together."""

PENDING_FOLDED_AT = 100_000
"""Pending records beyond which repeats are folded: a crash loop writes the same ones again and again."""


class _Pending(NamedTuple):
    version: tuple[int, int]
    key: bytes
    value: bytes | None
    offset: int


_version_of = itemgetter(0)


class ChangelogReader:
    """Feeds `store` from changelog records of one partition, in log order, by the rule above.

    `next_offset` is where to read on, `records` how many were fed.
    """

    def __init__(self, store: StateStore) -> None:
        self.store = store
        self.records = 0
        self.foreign_writes = 0
        self.restart()

    def restart(self) -> None:
        """Know no more than the store does: what was read and could not be stored is read again."""
        self.next_offset = self.store.position + 1
        self._mark = self.store.watermark
        self._reach = _reach(self.store.watermark)
        # Offsets, by key, of the newest records that were read after a watermark that covers them.
        self._old: dict[bytes, int] = {}
        self._own: deque[ChangelogRecord] = deque()
        self._pending: list[_Pending] = []
        self._fold_at = PENDING_FOLDED_AT

    @property
    def torn(self) -> int:
        """Records that no watermark has covered so far; at the end of the log, the torn tail."""
        return len(self._pending)

    @property
    def late(self) -> set[bytes]:
        """The keys to be written again by the owner; they stay so until it `wrote` them."""
        pending = {entry.key for entry in self._pending if entry.version <= self._reach}
        return pending.union(self._old)

    def feed(self, offset: int, key: bytes, value: bytes | None, headers: LazyHeaders) -> None:
        """Take the record at `offset` of the changelog. ValueError for one that is not ours; where the store
        cannot be written, what it raises, and reading goes on from `next_offset`, which went back.
        """
        if self.store.watermark is not self._mark:
            self._follow_store()
        if key == WATERMARK_KEY:
            self._adopt(offset, value)
        else:
            self._take(_Pending(self._version_of(value, headers), key, value, offset), adopts=True)
        self.records += 1
        self.next_offset = offset + 1

    def review(self, offset: int, key: bytes, value: bytes | None, headers: LazyHeaders) -> None:
        """The same for the owner, between whose records another process wrote: nothing is adopted.

        What is ahead of the owner stays pending until the owner itself gets there.
        """
        if self.store.watermark is not self._mark:
            self._follow_store()
        if self._own and self._own[0][:2] == (key, value):
            self._own.popleft()
            self._old.pop(key, None)
        elif key != WATERMARK_KEY:
            self._take(_Pending(self._version_of(value, headers), key, value, offset), adopts=False)
        self.records += 1
        self.next_offset = offset + 1

    def _version_of(self, value: bytes | None, headers: LazyHeaders) -> tuple[int, int]:
        if value is not None and (version := session_version(value)) >= self._reach:
            return version
        found = _header_of(headers() if callable(headers) else headers)
        if found is None and value is None:
            raise ValueError("a tombstone in the changelog has no version header")
        return version if found is None else found

    def _take(self, entry: _Pending, adopts: bool) -> None:
        # What is right at the watermark itself is adopted once more, by who adopts at all.
        if entry.version > self._reach or (adopts and entry.version == self._reach):
            self._pending.append(entry)
            if len(self._pending) > self._fold_at:
                self._fold()
        else:
            self._old[entry.key] = entry.offset

    def caught_up(self, end: int) -> None:
        """Everything below `end` was read; compaction may have left nothing at the last offsets."""
        self.next_offset = max(self.next_offset, end)

    def wrote(self, records: Sequence[ChangelogRecord], last_offset: int, mark: Watermark) -> int:
        """This process wrote a checkpoint; returns the position the store may claim.

        Where another process wrote in between, its records were not read: the position stays before
        them, and whoever reads on from there takes both writers' by the rule. The owner does so by
        `review`, once its store has this checkpoint. The checkpoint held all that was `late`.
        """
        self._old.clear()
        self._own.clear()
        if last_offset - len(records) + 1 == self.next_offset:
            self.next_offset = last_offset + 1
        else:
            self.foreign_writes += 1
            self._own.extend(records)
        reach = _reach(mark)
        self._pending = [entry for entry in self._pending if entry.version > reach]
        return self._position()

    def _adopt(self, offset: int, value: bytes | None) -> None:
        if value is None:
            raise ValueError("the changelog holds a tombstone for the watermark")
        mark = Watermark.decode(value)
        reach = _reach(mark)
        if self._mark is not None and reach < self._reach:
            mark, reach = self._mark, self._reach  # an older writer's: it proves nothing new
            self._old[WATERMARK_KEY] = offset
        else:
            self._old.pop(WATERMARK_KEY, None)
        ready = [entry for entry in self._pending if entry.version <= reach]
        if len(ready) == len(self._pending):
            self._pending = []
        else:
            self._pending = [entry for entry in self._pending if entry.version > reach]
        ready.sort(key=_version_of)  # of each key the highest version wins
        self.next_offset = offset + 1
        changes = {entry.key: entry.value for entry in ready}
        if self._old or len(changes) < len(ready):
            self._find_old(ready)
        try:
            self.store.commit(changes, mark, self._position())
        except BaseException:
            self.restart()
            raise
        self._mark, self._reach = self.store.watermark, reach
        self._fold_at = PENDING_FOLDED_AT

    def _find_old(self, ready: Sequence[_Pending]) -> None:
        """Of these, by ascending version, the highest of a key is adopted; is it the newest, too?"""
        adopted = {entry.key: entry.version for entry in ready}
        newest: dict[bytes, _Pending] = {}
        for entry in ready:
            if entry.key not in newest or entry.offset > newest[entry.key].offset:
                newest[entry.key] = entry
        for key, entry in newest.items():
            if self._old.get(key, -1) > entry.offset:
                continue
            if entry.version == adopted[key]:
                self._old.pop(key, None)
            else:
                self._old[key] = entry.offset

    def _position(self) -> int:
        pending = (entry.offset for entry in self._pending)
        return min(chain((self.next_offset,), pending, self._old.values())) - 1

    def _follow_store(self) -> None:
        """The owner has moved the store on: what its watermark covers is not pending any more."""
        self._mark, self._reach = self.store.watermark, _reach(self.store.watermark)
        self._pending = [entry for entry in self._pending if entry.version > self._reach]

    def _fold(self) -> None:
        # Of two records with the same key and version the bytes are equal; the first keeps its offset.
        first: dict[tuple[tuple[int, int], bytes], _Pending] = {}
        for entry in self._pending:
            first.setdefault((entry.version, entry.key), entry)
        self._pending = list(first.values())
        self._fold_at = max(PENDING_FOLDED_AT, 2 * len(self._pending))


def _header_of(headers: Headers) -> tuple[int, int] | None:
    for name, data in headers or ():
        if name == VERSION_HEADER and data is not None:
            return header_version(data)
    return None


def _reach(mark: Watermark | None) -> tuple[int, int]:
    return (0, -1) if mark is None else (mark.log_epoch, mark.applied_offset)
