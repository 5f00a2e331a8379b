"""Parts of tables as they lie on disk: whether one is whole, and that its insert was never done.

A part lists its files with their sizes in checksums.txt. The embedded engine takes a part for written even
where a full disk took nothing of it (seen of 26.9: every file that was not yet flushed is empty, and the
insert is answered with success), so only a look at the files tells.

Source of the formats: ClickHouse, src/Storages/MergeTree (MergeTreeDataPartChecksum.cpp,
MergeTreeDeduplicationLog.cpp).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

_CHECKSUMS = b"checksums format version: 4\n"
_HASH_BYTES = 16
_BLOCK_HEAD_BYTES = 9  # method, bytes with this head, bytes when decompressed
_STORED, _CODECS = 0x02, {0x82: "lz4_raw", 0x90: "zstd"}
_PART = re.compile(r"(?!tmp|delete|detached|moving).+?_\d+_\d+_(?P<level>\d+)(?P<mutation>_\d+)?")
_ADDED, _DROPPED = "1", "2"


def part_folders(store: str) -> Iterator[str]:
    """The folders of all parts under the engine's `store`, active or not, temporary ones left out."""
    for outer in _folders(store):
        for table in _folders(outer.path):
            for folder in _folders(table.path):
                if _PART.fullmatch(folder.name):
                    yield folder.path


def is_of_an_insert(folder: Path) -> bool:
    """Whether an insert wrote this part, and not a merge or a mutation of others.

    >>> [is_of_an_insert(Path(name)) for name in ("20261128_2_2_0", "all_1_9_1", "all_2_2_0_12")]
    [True, False, False]
    """
    found = _PART.fullmatch(folder.name)
    return found is not None and int(found["level"]) == 0 and found["mutation"] is None


def fault_of(folder: Path, projections: bool = True) -> str:
    """What is wrong with a part's files; nothing where it is whole, or is not there (any more).

    Without `projections` only that is looked at which holds rows.
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
    except FileNotFoundError:
        # The engine renames a part before it removes it: where the folder is, its files are.
        return "a file is missing" if folder.exists() else ""
    except (ValueError, IndexError, OSError) as error:
        return f"checksums.txt cannot be read ({error})"
    return ""


def recorded_sizes(path: Path) -> dict[str, int]:
    """By file, or projection, the bytes that a part's checksums.txt says. Raises ValueError, IndexError."""
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
        raise ValueError("another format")
    out, at = b"", len(_CHECKSUMS)
    while at < len(raw):
        head = at + _HASH_BYTES
        method = raw[head]
        packed = int.from_bytes(raw[head + 1 : head + 5], "little")
        size = int.from_bytes(raw[head + 5 : head + 9], "little")
        block = raw[head + _BLOCK_HEAD_BYTES : head + packed]
        if method != _STORED and method not in _CODECS:
            raise ValueError(f"compression {method:#x}")
        if method != _STORED:
            block = pa.decompress(block, size, codec=_CODECS[method], asbytes=True)
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


def forget_insert(folder: Path) -> None:
    """Let the insert that wrote this part be done again: its tokens are unknown to the table then.

    The table must not be attached. Where the disk takes nothing the log is left as it was.
    """
    logs = sorted(
        (folder.parent / "deduplication_logs").glob("deduplication_log_*.txt"),
        key=lambda path: int(path.stem.rpartition("_")[2]),
    )
    tokens: dict[str, None] = {}
    for path in logs:
        for line in path.read_text("utf-8").splitlines():
            operation, part, token = line.split("\t")
            if part == folder.name and operation == _ADDED:
                tokens[token] = None
            elif part == folder.name and operation == _DROPPED:
                tokens.pop(token, None)
    if tokens:
        _append(logs[-1], "".join(f"{_DROPPED}\t{folder.name}\t{token}\n" for token in tokens))


def _append(path: Path, text: str) -> None:
    before = path.stat().st_size
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
