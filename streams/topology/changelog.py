"""The changelog: how a partition's state is written so that a torn write can never be read.

Theory of operation. State is written in checkpoints: the sessions changed since the last one, then
the watermark. A crash may leave any prefix of that in the log. Each record therefore has a version,
(log epoch, source offset): a session's is the last offset applied to it, a tombstone's the offset at
which the session was evicted (in a header, since its value is empty), a watermark's the last offset
applied at all. Because operators are deterministic, a session's value at version v is right for every
watermark M ≥ v unless a later version ≤ M exists. Reading back thus means: M is the highest watermark
seen; of each key take the highest version ≤ M; versions above M are the torn tail and are left out.
This holds for any interleaving of writers too, a stopped process that wakes up late included.

Compaction keeps the newest record of a key, which could be a torn one; the topic's
min.compaction.lag.ms leaves hours for the next checkpoint, which rewrites exactly those keys.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from routekeel.streams.topology.watermark import WATERMARK_KEY, Watermark

VERSION_HEADER = "version"
_TOMBSTONE = struct.Struct("<Iq")
_SESSION_VERSION = struct.Struct("<BIq")  # the first fields of session.py's head


class Version(NamedTuple):
    """When a value was right: the log's epoch and the source offset."""

    log_epoch: int
    offset: int


class ChangelogRecord(NamedTuple):
    """One record to write, in this order within a checkpoint; the watermark is the last."""

    key: bytes
    value: bytes | None
    headers: list[tuple[str, bytes]] | None


def session_version(value: bytes) -> Version:
    """The version of an encoded session, without decoding the rest."""
    _, log_epoch, last_offset = _SESSION_VERSION.unpack_from(value)
    return Version(log_epoch, last_offset)


def checkpoint_records(
    changes: Mapping[bytes, bytes | None], evicted_at: Mapping[bytes, Version], watermark: Watermark
) -> Iterator[ChangelogRecord]:
    """A checkpoint as records: sessions and tombstones, then the watermark that makes them count."""
    for key, value in changes.items():
        if value is None:
            yield ChangelogRecord(key, None, [(VERSION_HEADER, _TOMBSTONE.pack(*evicted_at[key]))])
        else:
            yield ChangelogRecord(key, value, None)
    yield ChangelogRecord(WATERMARK_KEY, watermark.encode(), None)


class StateStore(Protocol):
    """Where one partition's committed state is kept: memory or a local database.

    `commit` makes a set of changes and the watermark visible at once, or not at all; `position` is the
    changelog offset up to which they include everything.
    """

    watermark: Watermark | None
    position: int

    def get(self, key: bytes) -> bytes | None: ...

    def items(self) -> Iterator[tuple[bytes, bytes]]: ...

    def commit(
        self, changes: Mapping[bytes, bytes | None], watermark: Watermark, position: int
    ) -> None: ...

    def close(self) -> None: ...


class MemoryStore:
    """A partition's committed state in a dict."""

    def __init__(self) -> None:
        self.watermark: Watermark | None = None
        self.position = -1
        self._sessions: dict[bytes, bytes] = {}

    def get(self, key: bytes) -> bytes | None:
        """The session's encoded state, if there is one."""
        return self._sessions.get(key)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Every session."""
        return iter(self._sessions.items())

    def commit(
        self, changes: Mapping[bytes, bytes | None], watermark: Watermark, position: int
    ) -> None:
        """Apply the changes."""
        for key, value in changes.items():
            if value is None:
                self._sessions.pop(key, None)
            else:
                self._sessions[key] = value
        self.watermark, self.position = watermark, position

    def close(self) -> None:
        """Nothing to release."""


class _Pending(NamedTuple):
    version: Version
    value: bytes | None
    offset: int


NOT_KNOWN = -1


class LogEnd:
    """Where one partition's changelog goes on, as a writer knows it that read it up to `end`.

    A store's position means that the store holds everything up to there. A writer that finds records
    of somebody else between its own (it was stopped and lost the partition, or such a one has woken
    up) must not claim that: the store stays where it is, and the next recovery reads the others'.

    >>> log_end = LogEnd(10)
    >>> log_end.wrote(10, 12, 3), log_end.wrote(14, 15, 2), log_end.wrote(16, 16, 1)
    (12, -1, -1)
    """

    def __init__(self, end: int) -> None:
        self._end: int | None = end

    def wrote(self, first: int, last: int, count: int) -> int:
        """The new position of the store that wrote `count` records at first … last, or NOT_KNOWN."""
        alone = first == self._end and last - first + 1 == count
        self._end = last + 1 if alone else None
        return last if alone else NOT_KNOWN


class ChangelogReader:
    """Feeds a store from changelog records, one partition, in log order, by the rule above."""

    def __init__(self, store: StateStore) -> None:
        self._store = store
        self._pending: dict[bytes, list[_Pending]] = {}
        # A slow writer's late session must not bring back one that was evicted after it.
        self._evicted: dict[bytes, Version] = {}
        # A store is complete at its watermark: what is not above that is in it, or was evicted since.
        mark = store.watermark
        self._held = Version(0, -1) if mark is None else _reach(mark)
        self.records = 0

    @property
    def torn(self) -> int:
        """Records that no watermark has covered so far; at the end of the log, the torn tail."""
        return sum(len(entries) for entries in self._pending.values())

    def feed(
        self,
        offset: int,
        key: bytes,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes | None]] | None,
    ) -> None:
        """Take the record at `offset` of the changelog. ValueError for one that is not ours."""
        self.records += 1
        if key != WATERMARK_KEY:
            version = _version(value, headers)
            if version > self._held:
                self._pending.setdefault(key, []).append(_Pending(version, value, offset))
            return
        if value is None:
            raise ValueError("the changelog holds a tombstone for the watermark")
        mark = Watermark.decode(value)
        current = self._store.watermark
        if current is not None and _reach(mark) < _reach(current):
            mark = current  # an older writer's: it proves nothing new
        self._promote(mark, offset)

    def _promote(self, mark: Watermark, offset: int) -> None:
        reach = _reach(mark)
        changes: dict[bytes, bytes | None] = {}
        later: dict[bytes, list[_Pending]] = {}
        for key, entries in self._pending.items():
            ready = [entry for entry in entries if entry.version <= reach]
            if len(ready) < len(entries):
                later[key] = [entry for entry in entries if entry.version > reach]
            if ready:
                newest = max(ready, key=lambda entry: entry.version)
                if newest.version >= self._known(key):
                    changes[key] = newest.value
                    if newest.value is None:
                        self._evicted[key] = newest.version
        self._pending = later
        # What is still pending must be read again by whoever starts from this position.
        first_pending = min(
            (entry.offset for entries in later.values() for entry in entries), default=offset + 1
        )
        self._store.commit(changes, mark, min(offset, first_pending - 1))

    def _known(self, key: bytes) -> Version:
        value = self._store.get(key)
        return (
            session_version(value) if value is not None else self._evicted.get(key, Version(0, -1))
        )


def _version(value: bytes | None, headers: Sequence[tuple[str, bytes | None]] | None) -> Version:
    if value is not None:
        return session_version(value)
    for name, data in headers or ():
        if name == VERSION_HEADER and data is not None:
            return Version(*_TOMBSTONE.unpack(data))
    raise ValueError("a tombstone in the changelog has no version header")


def _reach(mark: Watermark) -> Version:
    return Version(mark.log_epoch, mark.applied_offset)
