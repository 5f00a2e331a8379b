"""Parts of ClickHouse tables as files: whether one is whole, and that its insert can be done again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from routekeel.infra.local.gateway.damage import Damage, damage_of
from routekeel.infra.local.gateway.part_files import (
    PartName,
    fault_of,
    forget_inserts,
    part_folders,
    recorded_sizes,
    set_aside,
)

CODECS = {"stored": 0x02, "lz4_raw": 0x82, "zstd": 0x90}


def checksums(sizes: dict[str, int], codec: str = "zstd") -> bytes:
    """A checksums.txt in two blocks, written as the engine's source has it."""

    def number(value: int) -> bytes:
        out = bytearray()
        while value >= 0x80:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        return bytes([*out, value])

    data = number(len(sizes))
    for name, size in sizes.items():
        data += number(len(name)) + name.encode() + number(size) + bytes(16)
        packed = name.endswith(".bin")
        data += b"\1" + number(3 * size) + bytes(16) if packed else b"\0"
    blocks = b""
    for half in (data[:7], data[7:]):
        body = half if codec == "stored" else pa.compress(half, codec=codec, asbytes=True)
        head = bytes([CODECS[codec]]) + (9 + len(body)).to_bytes(4, "little")
        blocks += bytes(16) + head + len(half).to_bytes(4, "little") + body
    return b"checksums format version: 4\n" + blocks


@pytest.fixture
def part(tmp_path: Path) -> Path:
    """A whole part with a projection, in a table in a store."""
    folder = tmp_path / "store" / "abc" / "abc-table" / "20261128_2_2_0"
    projection = folder / "last.proj"
    projection.mkdir(parents=True)
    for place, sizes in ((projection, {"data.bin": 40}), (folder, {"data.bin": 300, "marks": 7})):
        for name, size in sizes.items():
            (place / name).write_bytes(bytes(size))
        more = {"last.proj": 99} if place is folder else {}
        (place / "checksums.txt").write_bytes(checksums(sizes | more))
        (place / "columns.txt").write_text("columns")
    return folder


@pytest.mark.parametrize("codec", CODECS)
def test_the_recorded_sizes_are_read_whatever_compresses_them(tmp_path: Path, codec: str) -> None:
    sizes = {"data.bin": 70_000, "x.proj": 1, "name": 127}
    path = tmp_path / "checksums.txt"
    path.write_bytes(checksums(sizes, codec))
    assert recorded_sizes(path) == sizes


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda part: None, ""),
        (lambda part: (part / "marks").write_bytes(b"123"), "marks has 3 bytes, not 7"),
        (lambda part: (part / "marks").unlink(), "marks has no bytes, not 7"),
        (lambda part: (part / "columns.txt").write_bytes(b""), "columns.txt is empty"),
        (lambda part: (part / "last.proj" / "data.bin").write_bytes(b"1"), "last.proj: data.bin has 1"),
        (lambda part: (part / "checksums.txt").unlink(), "a file is missing"),
        (lambda part: (part / "checksums.txt").write_bytes(b""), "checksums.txt cannot be read"),
        (lambda part: (part / "checksums.txt").write_bytes(b"checksums"), "checksums.txt cannot"),
        (lambda part: (part / "checksums.txt").write_bytes(b"checksums format version: 5\n"), ""),
        (
            lambda part: (part / "checksums.txt").write_bytes(
                (part / "checksums.txt").read_bytes()[:-9]
            ),
            "checksums.txt cannot be read",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_part_is_found(
    part: Path, change: Callable[[Path], object], fault: str
) -> None:
    change(part)
    assert fault_of(part).startswith(fault) and bool(fault_of(part)) == bool(fault)


def test_a_projection_holds_no_rows_and_what_is_recorded_may_be_empty(part: Path) -> None:
    (part / "last.proj" / "data.bin").write_bytes(b"1")
    assert fault_of(part) and not fault_of(part, projections=False)
    (part / "checksums.txt").write_bytes(checksums({"marks": 0, "data.bin": 300}))
    (part / "marks").write_bytes(b"")
    assert fault_of(part) == ""


def test_a_part_that_is_gone_has_no_fault(part: Path) -> None:
    assert fault_of(part.with_name("20261128_9_9_0")) == ""


def test_parts_are_found_and_temporary_ones_left_out(part: Path) -> None:
    table = part.parent
    for name in ("all_1_5_1", "tmp_insert_all_3_3_0", "delete_tmp_all_1_1_0", "format_version.txt"):
        (table / name).mkdir()
    (table / "detached" / "all_7_7_0").mkdir(parents=True)
    store = table.parent.parent
    found = set(map(Path, part_folders(str(store))))
    assert found == {part, table / "all_1_5_1"}
    names = {folder: PartName.of(folder.name) for folder in found}
    assert {folder for folder, name in names.items() if name and name.is_of_an_insert} == {part}
    assert list(part_folders(str(store / "nowhere"))) == []


def test_setting_aside_never_overwrites(part: Path) -> None:
    first = set_aside(part)
    part.mkdir()
    assert {first.name, set_aside(part).name} == {
        "unreadable_20261128_2_2_0",
        "unreadable_1_20261128_2_2_0",
    }
    assert not part.exists() and (first / "data.bin").exists()


def test_an_insert_is_forgotten_once_and_others_are_not(part: Path) -> None:
    table = part.parent
    logs = table / "deduplication_logs"
    logs.mkdir()
    (logs / "deduplication_log_9.txt").write_text(f"1\t{part.name}\ta\n1\tother_1_1_0\tb\n")
    last = logs / "deduplication_log_10.txt"
    before = f"2\tother_1_1_0\tb\n1\t{part.name}\tc\n"
    last.write_text(before + "1\tcut_4_4_0")
    forget_inserts(table, {part.name})
    after = before + f"2\t{part.name}\ta\n2\t{part.name}\tc\n"
    assert last.read_text() == after
    forget_inserts(table, {part.name})
    forget_inserts(table, {"unknown_1_1_0", "other_1_1_0"})
    assert last.read_text() == after


def make(table: Path, name: str, rows: int, whole: bool = True) -> Path:
    folder = table / name
    folder.mkdir(parents=True)
    (folder / "data.bin").write_bytes(bytes(rows if whole else 0))
    (folder / "count.txt").write_text(str(rows))
    sizes = {"data.bin": rows, "count.txt": len(str(rows))}
    (folder / "checksums.txt").write_bytes(checksums(sizes))
    return folder


def names(damage: Damage) -> tuple[list[str], list[str], list[str]]:
    undo, replace, left = ([p.name for p in x] for x in (damage.undo, damage.replace, damage.left))
    return undo, replace, left


def test_inserts_that_are_not_known_are_undone_and_merges_replaced_by_their_sources(
    tmp_path: Path,
) -> None:
    for name, rows, whole in (
        ("p_1_1_0", 10, True), ("p_2_2_0", 20, True), ("p_4_4_0", 5, True), ("p_1_4_1", 35, False),
        ("p_5_5_0", 7, False), ("p_6_6_0", 7, True), ("p_7_7_0", 7, False),
        ("q_1_1_0", 9, True), ("q_1_1_0_3", 9, False), ("q_2_2_0", 9, False), ("q_2_3_1", 9, True),
    ):  # fmt: skip
        make(tmp_path, name, rows, whole)
    known = {str(tmp_path / "p_7_7_0")}
    damage = damage_of(tmp_path, known)
    assert names(damage) == (["p_5_5_0"], ["p_1_4_1", "q_1_1_0_3"], ["p_7_7_0"])
    damage.mend()
    assert names(damage_of(tmp_path, known)) == ([], [], ["p_7_7_0"])
    assert sorted(path.name for path in (tmp_path / "detached").iterdir()) == [
        "unreadable_p_1_4_1",
        "unreadable_p_5_5_0",
        "unreadable_q_1_1_0_3",
    ]


@pytest.mark.parametrize(
    "sources",
    [
        [],
        [("p_1_1_0", 10, True)],
        [("p_1_1_0", 10, True), ("p_2_2_0", 20, False)],
        [("p_1_1_0", 10, True), ("p_2_2_0", 19, True)],
        [("p_2_2_0", 30, True)],
    ],
)
def test_a_merge_stays_whose_sources_are_not_all_there(
    tmp_path: Path, sources: list[tuple[str, int, bool]]
) -> None:
    make(tmp_path, "p_1_2_1", 30, whole=False)
    for name, rows, whole in sources:
        make(tmp_path, name, rows, whole)
    assert names(damage_of(tmp_path, known=())) == ([], [], ["p_1_2_1"])


def test_a_merge_that_does_not_even_say_its_rows_is_replaced_by_what_begins_and_ends_it(
    tmp_path: Path,
) -> None:
    (make(tmp_path, "p_1_5_2", 30, whole=False) / "count.txt").write_bytes(b"")
    make(tmp_path, "p_1_3_1", 10)
    make(tmp_path, "p_1_1_0", 10)
    make(tmp_path, "p_5_5_0", 20)
    assert names(damage_of(tmp_path, known=())) == ([], ["p_1_5_2"], [])
