"""The changelog: how a partition's state is written so that a torn write can never be read.

Theory of operation. State is written in checkpoints: the sessions changed since the last one, then
the watermark. A crash may leave any prefix of that in the log. Each record therefore has a version,
(log epoch, source offset): a session's is the last offset applied to it, a tombstone's the offset at
which the session was evicted (in a header, since its value is empty), a watermark's the last offset
applied at all. Because operators are deterministic, a session's value at version v is right for every
watermark M ≥ v unless a later version ≤ M exists. Reading back thus means: M is the highest watermark
seen; of each key take the highest version ≤ M; versions above M are the torn tail and are left out.
This holds for any interleaving of writers too, a stopped process that wakes up late included
(changelog_reader.py reads by this rule).

Compaction keeps the newest record of a key, which could be a torn one: the topic's
min.compaction.lag.ms leaves an hour for the next checkpoint, which rewrites exactly those keys. It could
be a late writer's, too, over the right value or a tombstone: the owner meets it by a gap in its own
records' offsets, or when it recovers, and writes the key again (`rewritten`) long before the lag is over.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import repeat
from typing import Any, NamedTuple, Protocol

from routekeel.streams.topology.watermark import WATERMARK_KEY, Watermark

VERSION_HEADER = "version"
_HEADER = struct.Struct("<Iq")
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


_RECORD: Callable[[tuple[Any, ...]], ChangelogRecord] = partial(tuple.__new__, ChangelogRecord)


def session_version(value: bytes) -> tuple[int, int]:
    """The version of an encoded session, without decoding the rest; a plain tuple, for speed."""
    _, log_epoch, last_offset = _SESSION_VERSION.unpack_from(value)
    return log_epoch, last_offset


def header_version(header: bytes) -> tuple[int, int]:
    """The version in the header of a tombstone, or of what was written again."""
    log_epoch, offset = _HEADER.unpack(header)
    return log_epoch, offset


def checkpoint_records(
    changes: Mapping[bytes, bytes | None], evicted_at: Mapping[bytes, Version], watermark: Watermark
) -> list[ChangelogRecord]:
    """A checkpoint as records: sessions and tombstones, then the watermark that makes them count."""
    if evicted_at:
        records = [
            ChangelogRecord(key, value, _evicted(evicted_at[key]) if value is None else None)
            for key, value in changes.items()
        ]
    else:
        # The same in a third of the time: a checkpoint may have a million.
        records = list(map(_RECORD, zip(changes.keys(), changes.values(), repeat(None))))
    records.append(ChangelogRecord(WATERMARK_KEY, watermark.encode(), None))
    return records


def _evicted(version: Version) -> list[tuple[str, bytes]]:
    return [(VERSION_HEADER, _HEADER.pack(*version))]


def rewritten(
    keys: Iterable[bytes], store: StateStore, watermark: Watermark
) -> Iterator[ChangelogRecord]:
    """What the store has of keys that nothing has touched since: for those a late writer's record lies over.

    Their version is the watermark of the checkpoint that they go into, in a header: a reader who has
    taken the late record for the key's only one must not take this one for late as well. The watermark
    itself is in every checkpoint.
    """
    header = _HEADER.pack(watermark.log_epoch, watermark.applied_offset)
    for key in keys:
        if key != WATERMARK_KEY:
            yield ChangelogRecord(key, store.get(key), [(VERSION_HEADER, header)])


class StateStore(Protocol):
    """Where one partition's committed state is kept: memory or a local database.

    `commit` makes a set of changes and the watermark visible at once, or not at all; `position` is the
    changelog offset up to which they include everything.
    """

    watermark: Watermark | None
    position: int

    def get(self, key: bytes) -> bytes | None: ...

    def get_all(self, keys: Sequence[bytes]) -> list[bytes | None]: ...

    def items(self) -> Iterator[tuple[bytes, bytes]]: ...

    def heads(self) -> Iterator[tuple[bytes, bytes]]: ...

    def commit(
        self, changes: Mapping[bytes, bytes | None], watermark: Watermark, position: int
    ) -> None: ...

    def close(self) -> None: ...


REMOVED_SHARE = 8
"""The memory store's table is made anew when an eighth of what it holds has been removed since."""


class MemoryStore:
    """A partition's committed state in a dict."""

    def __init__(self) -> None:
        self.watermark: Watermark | None = None
        self.position = -1
        self._sessions: dict[bytes, bytes] = {}
        self._removed = 0

    def get(self, key: bytes) -> bytes | None:
        """The session's encoded state, if there is one."""
        return self._sessions.get(key)

    def get_all(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """`get` for each."""
        return list(map(self._sessions.get, keys))

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Every session."""
        return iter(self._sessions.items())

    def heads(self) -> Iterator[tuple[bytes, bytes]]:
        """Every session with at least the head of its state; here all of it costs nothing."""
        return self.items()

    def commit(
        self, changes: Mapping[bytes, bytes | None], watermark: Watermark, position: int
    ) -> None:
        """Apply the changes."""
        self._sessions.update(changes)  # type: ignore[arg-type]
        gone = [key for key, value in changes.items() if value is None]
        for key in gone:
            del self._sessions[key]
        self._removed += len(gone)
        if self._removed > len(self._sessions) // REMOVED_SHARE:
            # A removed key keeps its place in a dict's table, which doubles when it is full of such.
            self._sessions, sessions = {}, self._sessions
            self._sessions.update(sessions)
            self._removed = 0
        self.watermark, self.position = watermark, position

    def close(self) -> None:
        """Nothing to release."""
