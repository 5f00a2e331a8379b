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
from collections.abc import ItemsView, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol, overload

import numpy as np

from routekeel.streams.topology.record_block import RecordBlock
from routekeel.streams.topology.session_table import SessionTable
from routekeel.streams.topology.version import Version
from routekeel.streams.topology.watermark import WATERMARK_KEY, Watermark

VERSION_HEADER = "version"
_HEADER = struct.Struct("<Iq")
_SESSION_VERSION = struct.Struct("<BIq")  # the first fields of session.py's head


class ChangelogRecord(NamedTuple):
    """One record to write, in this order within a checkpoint; the watermark is the last."""

    key: bytes
    value: bytes | None
    headers: list[tuple[str, bytes]] | None


BLOCK_BYTES = 4 * 2**20
"""Of a checkpoint's states, gathered and sent at a time, unless one state is larger."""


def session_version(value: bytes) -> tuple[int, int]:
    """The version of an encoded session, without decoding the rest; a plain tuple, for speed."""
    _, log_epoch, last_offset = _SESSION_VERSION.unpack_from(value)
    return log_epoch, last_offset


def header_version(header: bytes) -> tuple[int, int]:
    """The version in the header of a tombstone, or of what was written again."""
    log_epoch, offset = _HEADER.unpack(header)
    return log_epoch, offset


class Changes(Mapping[bytes, bytes | None]):
    """What has changed in a table since the last checkpoint: its new state by key, None for who was evicted."""

    def __init__(self, table: SessionTable) -> None:
        self.table = table
        self._slots = table.changed

    def __len__(self) -> int:
        return len(self._slots) + len(self.table.gone)

    def __iter__(self) -> Iterator[bytes]:
        yield from self.table.gone
        yield from self.table.order.keys_of(self._slots.tolist())

    def __getitem__(self, key: bytes) -> bytes | None:
        if key in self.table.gone:
            return None
        slot, heap = self.table.order.slot_of(key), self.table.heap
        if not slot or heap.start[slot] == heap.kept_start[slot]:
            raise KeyError(key)
        return heap.get(slot)

    def items(self) -> ItemsView[bytes, bytes | None]:
        """All of it, read at once."""
        return {key: value for key, value, _ in self.records()}.items()

    def records(self) -> Iterator[ChangelogRecord]:
        """As the changelog has them."""
        for block in self.blocks():
            for index, (key, value) in enumerate(block.records()):
                yield ChangelogRecord(key or b"", value, block.headers.get(index))

    def blocks(self) -> Iterator[RecordBlock]:
        """The same as columns, BLOCK_BYTES of states at a time."""
        if gone := self.table.gone:
            headers = dict(enumerate(map(_evicted, gone.values())))
            yield RecordBlock.of(list(gone), [None] * len(gone), headers)
        heap, slots = self.table.heap, self._slots
        ends = np.cumsum(heap.size[slots])
        start, before = 0, 0
        while start < len(slots):
            end = max(start + 1, int(np.searchsorted(ends, before + BLOCK_BYTES, side="right")))
            part = slots[start:end]
            data, places = heap.gather(part)
            spans = np.stack((places - heap.size[part], places), axis=1)
            yield RecordBlock(self.table.order.keys_of(part.tolist()), data, spans, {})
            start, before = end, int(ends[end - 1])


class Checkpoint(Sequence[ChangelogRecord]):
    """A checkpoint's records: tombstones and sessions, then the watermark that makes them count.

    Read from the table as they are asked for, so until the next batch only.
    """

    def __init__(
        self, changes: Changes, watermark: Watermark, again: Sequence[ChangelogRecord] = ()
    ) -> None:
        self._changes, self._again = changes, again
        self.mark = ChangelogRecord(WATERMARK_KEY, watermark.encode(), None)

    def __len__(self) -> int:
        return len(self._again) + len(self._changes) + 1

    def __iter__(self) -> Iterator[ChangelogRecord]:
        yield from self._again
        yield from self._changes.records()
        yield self.mark

    @overload
    def __getitem__(self, index: int) -> ChangelogRecord: ...

    @overload
    def __getitem__(self, index: slice) -> list[ChangelogRecord]: ...

    def __getitem__(self, index: int | slice) -> ChangelogRecord | list[ChangelogRecord]:
        return self.mark if index == -1 else list(self)[index]

    @property
    def tombstones(self) -> int:
        """How many of the records are some."""
        return len(self._changes.table.gone) + sum(r.value is None for r in self._again)

    def blocks(self) -> Iterator[RecordBlock]:
        """All but the watermark as columns, BLOCK_BYTES of states at a time."""
        if self._again:
            headers = {i: r.headers for i, r in enumerate(self._again) if r.headers}
            yield RecordBlock.of(
                [r.key for r in self._again], [r.value for r in self._again], headers
            )
        yield from self._changes.blocks()


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
    table: SessionTable | None
    """Where the states are, if it is in memory: the owner works in it, and `commit` keeps what it did."""

    def get(self, key: bytes) -> bytes | None: ...

    def get_all(self, keys: Sequence[bytes]) -> list[bytes | None]: ...

    def items(self) -> Iterator[tuple[bytes, bytes]]: ...

    def heads(self) -> Iterator[tuple[bytes, bytes]]: ...

    def commit(
        self, changes: Mapping[bytes, bytes | None], watermark: Watermark, position: int
    ) -> None: ...

    def close(self) -> None: ...


class MemoryStore:
    """A partition's committed state in a table, in which its owner works, too."""

    def __init__(self) -> None:
        self.watermark: Watermark | None = None
        self.position = -1
        self.table: SessionTable | None = SessionTable()
        self._table = self.table

    def get(self, key: bytes) -> bytes | None:
        """The session's encoded state, if there is one."""
        return self._table.kept_of(key)

    def get_all(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """`get` for each."""
        return list(map(self.get, keys))

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Every session."""
        return self._table.kept()

    def heads(self) -> Iterator[tuple[bytes, bytes]]:
        """Every session with at least the head of its state; here all of it costs nothing."""
        return self.items()

    def commit(
        self, changes: Mapping[bytes, bytes | None], watermark: Watermark, position: int
    ) -> None:
        """Apply the changes; what an owner that is no more had not committed is forgotten."""
        if isinstance(changes, Changes) and changes.table is self._table:
            self._table.keep()
        else:
            self._table.roll_back()
            self._table.put(changes)
        self.watermark, self.position = watermark, position

    def close(self) -> None:
        """Nothing to release."""
