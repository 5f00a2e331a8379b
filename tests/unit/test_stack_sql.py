"""The gateway's scan of a statement: kind, formats, and where an INSERT's data begin."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routekeel.infra.local.gateway import sql


@pytest.mark.parametrize(
    ("text", "first", "name"),
    [
        (b"SELECT 1", "SELECT", None),
        (b"  -- a remark\n/* FORMAT CSV */ select 1 format JSON", "SELECT", "JSON"),
        (b"SELECT 1\n FORMAT Native SETTINGS max_threads=1;", "SELECT", "Native"),
        (b"SELECT format FROM t", "SELECT", None),
        (b"SELECT 'x FORMAT CSV' AS `FORMAT CSV`, f(FORMAT, 1)", "SELECT", None),
        (b"SELECT a FORMAT FROM t", "SELECT", None),
        (b"WITH 1 AS x SELECT x", "WITH", None),
        (b"SELECT 'it''s \\' ; fine' ;", "SELECT", None),
        (b"", "", None),
        (b"CREATE TABLE t (format String) ENGINE = Memory", "CREATE", None),
    ],
)
def test_kind_and_output_format(text: bytes, first: str, name: str | None) -> None:
    shape = sql.scan(text)
    assert (shape.first, shape.format, shape.takes_data) == (first, name, False)


@pytest.mark.parametrize(
    ("text", "head", "data"),
    [
        (b"INSERT INTO t FORMAT CSV\n1,2", b"INSERT INTO t ", b"1,2"),
        (b"INSERT INTO t FORMAT CSV \r\n 1", b"INSERT INTO t ", b" 1"),
        (b"insert into `a FORMAT b` (`x`, format) format Native\n\x00\xff';", None, b"\x00\xff';"),
        (b"INSERT INTO t SETTINGS async_insert=0 FORMAT RowBinary\n\n", None, b"\n"),
        (b'INSERT INTO t FORMAT JSONEachRow {"a":1}', b"INSERT INTO t ", b'{"a":1}'),
        (b"INSERT INTO FUNCTION null('a UInt8') FORMAT TSV\n1", None, b"1"),
    ],
)
def test_insert_data_begin_after_the_format(text: bytes, head: bytes | None, data: bytes) -> None:
    shape = sql.scan(text)
    assert shape.takes_data
    assert text[shape.data_begin :] == data
    if head is not None:
        assert text[: shape.head_end] == head


@given(st.binary(max_size=200))
def test_data_are_never_looked_at(data: bytes) -> None:
    text = b"INSERT INTO t (a) FORMAT Native\n" + data
    assert text[sql.scan(text).data_begin :] == data


@given(st.binary(max_size=300))
def test_any_bytes_are_scanned_to_the_end(data: bytes) -> None:
    try:
        shape = sql.scan(data)
    except sql.MultipleStatementsError:
        return
    assert 0 <= shape.data_begin <= len(data)


@pytest.mark.parametrize(
    "text",
    [b"INSERT INTO t VALUES (1); SELECT", b"INSERT INTO t SELECT 1", b"INSERT INTO t WITH 1"],
)
def test_inserts_without_a_format_are_whole_statements(text: bytes) -> None:
    assert not sql.scan(text).takes_data


def test_two_statements_are_refused() -> None:
    with pytest.raises(sql.MultipleStatementsError):
        sql.scan(b"SELECT 1; DROP TABLE t")
    assert sql.scan(b"SELECT 1;\n ; -- the end\n").first == "SELECT"


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        (b"SET max_threads = 1", True),
        (b"use d", True),
        (b"CREATE TEMPORARY TABLE t (a Int8)", True),
        (b"CREATE TABLE t (temporary Int8) ENGINE = Memory", False),
        (b"SELECT 'SET'", False),
    ],
)
def test_what_changes_a_session(text: bytes, changes: bool) -> None:
    assert sql.scan(text).changes_session is changes


def test_files_of_the_command_line_client_are_seen() -> None:
    assert sql.scan(b"SELECT 1 INTO OUTFILE '/tmp/x' FORMAT CSV").touches_files
    assert sql.scan(b"INSERT INTO t FROM INFILE '/tmp/x' FORMAT CSV").touches_files
    assert not sql.scan(b"SELECT 'INTO OUTFILE'").touches_files


@pytest.mark.parametrize("value", ["", "plain", "it's", "back\\slash", "\\'", "line\nbreak"])
def test_quoting_survives_a_scan(value: str) -> None:
    shape = sql.scan(f"SELECT {sql.quoted(value)} FORMAT CSV".encode())
    assert (shape.words, shape.format) == (frozenset({"SELECT"}), "CSV")
    shape = sql.scan(f"SELECT {sql.identifier(value + '`')} FORMAT CSV".encode())
    assert shape.format == "CSV"
