"""Parts of tables as they lie on disk: whether one is whole, and which can be done without.

A part lists its files with their sizes in checksums.txt. The embedded engine takes a part for written even
where a full disk took nothing of it (seen of 26.9: every file that was not yet flushed is empty, and the
insert is answered with success), so only a look at the files tells.

Source of the formats: ClickHouse, src/Storages/MergeTree (MergeTreeDataPartChecksum.cpp,
MergeTreeDeduplicationLog.cpp).
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

_CHECKSUMS = b"checksums format version: 4\n"
_HASH_BYTES = 16
_BLOCK_HEAD_BYTES = 9  # method, bytes with this head, bytes when decompressed
_STORED, _CODECS = 0x02, {0x82: "lz4_raw", 0x90: "zstd"}
_PART = re.compile(r"(?!tmp|delete|detached|moving)(.+?)_(\d+)_(\d+)_(\d+)(?:_(\d+))?")
_ADDED, _DROPPED = "1", "2"


class AnotherFormat(Exception):
    """The engine writes its lists of files in a way that is not known here."""


class PartName(NamedTuple):
    """What a part's name says: its partition, the first and last block in it, how often merged, mutated by."""

    partition: str
    first: int
    last: int
    level: int
    mutation: int

    @classmethod
    def of(cls, text: str) -> PartName | None:
        """None for what is no part's name, or a temporary one.

        >>> PartName.of("20261128_2_9_1")
        PartName(partition='20261128', first=2, last=9, level=1, mutation=0)
        >>> PartName.of("tmp_insert_20261128_2_2_0") is PartName.of("detached") is None
        True
        """
        found = _PART.fullmatch(text)
        if found is None:
            return None
        partition, first, last, level, mutation = found.groups(default="0")
        return cls(partition, int(first), int(last), int(level), int(mutation))

    @property
    def is_of_an_insert(self) -> bool:
        """Whether an insert wrote it, and not a merge or a mutation of others."""
        return self.level == 0 and self.mutation == 0

    def holds(self, other: PartName) -> bool:
        """Whether the rows of the other part are in this one."""
        return (
            self.partition == other.partition
            and self.first <= other.first
            and other.last <= self.last
            and self.level >= other.level
            and self.mutation >= other.mutation
        )


def outermost(parts: Iterable[Path]) -> list[Path]:
    """The folders of those parts that no other one of them holds: what the engine takes as the table.

    >>> [p.name for p in outermost(map(Path, ["a_1_1_0", "a_2_2_0", "a_1_2_1", "a_3_3_0_4", "a_3_3_0"]))]
    ['a_1_2_1', 'a_3_3_0_4']
    """
    named = [(name, path) for path in parts if (name := PartName.of(path.name))]
    named.sort(key=lambda p: (p[0].partition, p[0].first, -p[0].last, -p[0].level, -p[0].mutation))
    kept: list[tuple[PartName, Path]] = []
    for name, path in named:
        if not kept or not kept[-1][0].holds(name):
            kept.append((name, path))
    return [path for _, path in kept]


def part_folders(store: str) -> Iterator[str]:
    """The folders of all parts under the engine's `store`, active or not, temporary ones left out."""
    for table in table_folders(store):
        for folder in _folders(table):
            if PartName.of(folder.name):
                yield folder.path


def table_folders(store: str) -> Iterator[str]:
    """The folders of all tables; each is named by the table's UUID."""
    for outer in _folders(store):
        for table in _folders(outer.path):
            yield table.path


def fault_of(folder: Path, projections: bool = True) -> str:
    """What is wrong with a part's files; nothing where it is whole, or is not there (any more).

    Without `projections` only that is looked at which holds rows. What cannot be judged, a list of files in
    another format, counts as whole.
    """
    try:
        with os.scandir(folder) as entries:
            sizes = {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
        recorded = recorded_sizes(folder / "checksums.txt")
        for name, wanted in recorded.items():
            if name.endswith(".proj"):
                if projections and (fault := fault_of(folder / name)):
                    return f"{name}: {fault}"
            elif sizes.get(name) != wanted:
                return f"{name} has {sizes.get(name, 'no')} bytes, not {wanted}"
        for name, size in sizes.items():
            if not size and name not in recorded:  # what is recorded may well be empty
                return f"{name} is empty"
    except AnotherFormat:
        return ""
    except FileNotFoundError:
        # The engine renames a part before it removes it: where the folder is, its files are.
        return "a file is missing" if folder.exists() else ""
    except (ValueError, IndexError) as error:
        return f"checksums.txt cannot be read ({error})"
    return ""


def recorded_sizes(path: Path) -> dict[str, int]:
    """By file, or projection, the bytes that a part's checksums.txt says.

    Raises AnotherFormat, FileNotFoundError, and ValueError or IndexError for one that is cut off.
    """
    data = _decompressed(path.read_bytes())
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            value |= (byte & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if byte < 0x80:
                return value

    sizes: dict[str, int] = {}
    for _ in range(number()):
        length = number()
        name = data[at : at + length].decode()
        at += length
        sizes[name] = number()
        at += _HASH_BYTES
        is_compressed = data[at]
        at += 1
        if is_compressed:
            number()
            at += _HASH_BYTES
    if at != len(data):
        raise ValueError("its end is not where it should be")
    return sizes


def _decompressed(raw: bytes) -> bytes:
    if not raw.startswith(_CHECKSUMS):
        if _CHECKSUMS.startswith(raw):
            raise ValueError("it is cut off")
        raise AnotherFormat(raw[: len(_CHECKSUMS)])
    out, at = b"", len(_CHECKSUMS)
    while at < len(raw):
        head = at + _HASH_BYTES
        method = raw[head]
        packed = int.from_bytes(raw[head + 1 : head + 5], "little")
        size = int.from_bytes(raw[head + 5 : head + 9], "little")
        block = raw[head + _BLOCK_HEAD_BYTES : head + packed]
        if method != _STORED and method not in _CODECS:
            raise AnotherFormat(f"compression {method:#x}")
        if method != _STORED:
            try:
                block = pa.decompress(block, size, codec=_CODECS[method], asbytes=True)
            except OSError as error:  # Arrow's name for what is not compressed so
                raise ValueError(str(error)) from error
        out, at = out + block, head + packed
    return out


def set_aside(folder: Path) -> Path:
    """Move a part out of its table, which must not be attached; where it is then."""
    place = folder.parent / "detached" / f"unreadable_{folder.name}"
    number = 0
    while place.exists():
        number += 1
        place = place.with_name(f"unreadable_{number}_{folder.name}")
    place.parent.mkdir(exist_ok=True)
    return folder.rename(place)


def forget_inserts(table: Path, parts: Collection[str]) -> None:
    """Let the inserts that wrote these parts be done again: their tokens are unknown to the table then.

    The table must not be attached. Raises OSError where the disk takes nothing; the log is then as it was,
    but for the end of it that had been cut off before.
    """
    logs = sorted(
        (table / "deduplication_logs").glob("deduplication_log_*.txt"),
        key=lambda path: int(path.stem.rpartition("_")[2]),
    )
    known: dict[tuple[str, str], None] = {}
    for path in logs:
        for line in path.read_text("utf-8", errors="replace").splitlines():
            operation, _, rest = line.partition("\t")
            part, _, token = rest.partition("\t")
            if part in parts and operation == _ADDED and token:
                known[part, token] = None
            elif operation == _DROPPED:
                known.pop((part, token), None)
    if known:
        _append(logs[-1], "".join(f"{_DROPPED}\t{part}\t{token}\n" for part, token in known))


def _append(path: Path, text: str) -> None:
    raw = path.read_bytes()
    # A line that a full disk has cut off would take ours for its end.
    before = raw.rfind(b"\n") + 1
    if before < len(raw):
        os.truncate(path, before)
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        os.truncate(path, before)
        raise


def _folders(place: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(place) as entries:
            yield from (entry for entry in entries if entry.is_dir())
    except FileNotFoundError:
        return  # a table that was dropped meanwhile
