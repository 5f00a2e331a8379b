"""Checkpoints for the scenarios, and a reader that remembers what it was given."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any, NamedTuple

from routekeel.streams.topology.changelog import ChangelogRecord, MemoryStore, StateStore
from routekeel.streams.topology.changelog_reader import ChangelogReader
from routekeel.streams.topology.version import Version
from routekeel.streams.topology.watermark import Watermark
from tests.stream.checkpoints import checkpoint_records


class Read(NamedTuple):
    """A record as a reader got it."""

    offset: int
    record: ChangelogRecord


class Remembering(ChangelogReader):
    """`fed` and `reviewed` are what came, in order."""

    def __init__(self, store: StateStore | None = None) -> None:
        super().__init__(store or MemoryStore())
        self.fed: list[Read] = []
        self.reviewed: list[Read] = []

    def feed(self, offset: int, key: bytes, value: bytes | None, headers: Any) -> None:
        self.fed.append(_read(offset, key, value, headers))
        super().feed(offset, key, value, headers)

    def review(self, offset: int, key: bytes, value: bytes | None, headers: Any) -> None:
        self.reviewed.append(_read(offset, key, value, headers))
        super().review(offset, key, value, headers)


def _read(offset: int, key: bytes, value: bytes | None, headers: Any) -> Read:
    found = headers() if callable(headers) else headers
    return Read(offset, ChangelogRecord(key, value, list(found) if found else None))


def checkpoint(applied: int, keys: Iterable[str] = ("a", "b")) -> list[ChangelogRecord]:
    """Sessions of these keys, a tombstone with its version, and the watermark at `applied`."""
    values = {key.encode(): struct.pack("<BIq", 1, 0, applied) + key.encode() for key in keys}
    gone = f"gone-{applied}".encode()
    mark = Watermark("log-1", applied_offset=applied)
    evicted = {gone: Version(0, applied)}
    return list(checkpoint_records({**values, gone: None}, evicted, mark))


def nothing(read: int, total: int) -> None:
    """A recovery's progress that nobody looks at."""


def at(offset: int, records: list[ChangelogRecord]) -> list[Read]:
    """These records as read from `offset` on."""
    return [Read(offset + place, record) for place, record in enumerate(records)]
