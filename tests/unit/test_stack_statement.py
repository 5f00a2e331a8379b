"""The gateway's reading of requests, encodings, credentials and its replies, without an engine."""

from __future__ import annotations

import base64
import gzip
import json
import zlib

import cramjam
import pytest

from routekeel.infra.local.gateway import encoding, statement
from routekeel.infra.local.gateway.access import Access
from routekeel.infra.local.gateway.replies import (
    ClickHouseError,
    Progress,
    exception_block,
    new_tag,
)
from routekeel.infra.local.gateway.reply import content_type


def build(options: dict[str, str], body: bytes = b"", **changes: object) -> statement.Statement:
    arguments: dict[str, object] = {"read_only": False, "default_format": None, **changes}
    made = statement.build(options, body, **arguments)  # type: ignore[arg-type]
    assert made is not None
    return made


def test_query_in_the_url_and_data_in_the_body() -> None:
    made = build({"query": "INSERT INTO t (a) FORMAT Native"}, b"\x01\x02;'\xff")
    assert (made.text, made.format, made.data) == (
        "INSERT INTO t (a) ",
        "Native",
        b"\x01\x02;'\xff",
    )


def test_statement_and_data_in_the_body() -> None:
    made = build({}, b"INSERT INTO t FORMAT CSV\n1\n")
    assert (made.text, made.format, made.data) == ("INSERT INTO t ", "CSV", b"1\n")


def test_an_insert_without_format_takes_values_or_the_default() -> None:
    made = build({"query": "INSERT INTO t (a)"}, b"(1),(2)")
    assert (made.format, made.data) == ("Values", b"(1),(2)")
    made = build({"query": "INSERT INTO t", "default_format": "CSV"}, b"1")
    assert (made.format, made.data) == ("CSV", b"1")


def test_output_format_comes_from_text_then_url_then_header_then_tab_separated() -> None:
    options = {"default_format": "JSON"}
    assert build(options, b"SELECT 1 FORMAT CSV").format == "CSV"
    assert build(options, b"SELECT 1", default_format="XML").format == "JSON"
    assert build({}, b"SELECT 1", default_format="XML").format == "XML"
    assert build({}, b"SELECT 1").format == "TabSeparated"


def test_reserved_parameters_are_no_settings() -> None:
    made = build(
        {
            "query": "SELECT {a:UInt8}",
            "param_a": "5",
            "session_id": "s",
            "wait_end_of_query": "1",
            "max_threads": "2",
            "database": "d",
            "client_protocol_version": "54405",
        }
    )
    assert made.settings == {"max_threads": "2"}
    assert made.parameters == {"a": "5"}
    assert (made.database, made.session_id, made.wait_end) == ("d", "s", True)


def test_an_empty_request_holds_no_statement() -> None:
    assert statement.build({}, b" \n", read_only=True, default_format=None) is None


@pytest.mark.parametrize(
    ("options", "body", "code"),
    [
        ({}, b"SELECT 1; SELECT 2", 62),
        ({}, b"SELECT '\xff'", 62),
        ({}, b"SELECT 1 INTO OUTFILE 'x'", 358),
        ({"compress": "1"}, b"SELECT 1", 48),
        ({"max_threads = 1, readonly": "1"}, b"SELECT 1", 115),
    ],
)
def test_what_is_refused(options: dict[str, str], body: bytes, code: int) -> None:
    with pytest.raises(ClickHouseError) as caught:
        build(options, body)
    assert caught.value.code == code
    assert caught.value.text.startswith(f"Code: {code}. DB::Exception: ")


def test_session_timeouts_are_bounded() -> None:
    for given, taken in (("10", 10), ("", 60), ("x", 60), ("99999", 3600), ("0", 1)):
        assert build({"session_timeout": given}, b"SELECT 1").session_timeout_s == taken


PLAIN = b"a row of data\n" * 1000
COMPRESSORS = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "lz4": lambda data: bytes(cramjam.lz4.compress(data)),
    "zstd": lambda data: bytes(cramjam.zstd.compress(data)),
    "br": lambda data: bytes(cramjam.brotli.compress(data)),
}


@pytest.mark.parametrize("name", sorted(COMPRESSORS))
def test_bodies_are_decoded(name: str) -> None:
    assert encoding.decode(COMPRESSORS[name](PLAIN), name) == PLAIN
    with pytest.raises(ClickHouseError):
        encoding.decode(b"not compressed at all", name)


@pytest.mark.parametrize("name", ["gzip", "lz4", "zstd"])
def test_several_frames_are_one_body(name: str) -> None:
    frames = COMPRESSORS[name](PLAIN) + COMPRESSORS[name](b"the end")
    assert encoding.decode(frames, name) == PLAIN + b"the end"


@pytest.mark.parametrize("name", encoding.OFFERED)
def test_replies_are_encoded_chunk_by_chunk(name: str) -> None:
    encoder = encoding.encoder(name)
    sent = [encoder.add(PLAIN), encoder.add(memoryview(b"more")), encoder.end()]
    assert sent[0]  # a chunk is out before the next one comes
    assert encoding.decode(b"".join(sent), name) == PLAIN + b"more"


def test_unknown_encodings_are_refused() -> None:
    with pytest.raises(ClickHouseError) as caught:
        encoding.decode(b"x", "compress")
    assert caught.value.status == 501
    assert encoding.decode(b"x", "identity") == b"x"


def test_credentials_in_every_way() -> None:
    access = Access("me", "päss:word")
    basic = base64.b64encode("me:päss:word".encode()).decode()
    access.check({"Authorization": f"Basic {basic}"}, {})
    access.check({"X-ClickHouse-User": "me", "X-ClickHouse-Key": "päss:word"}, {})
    access.check({}, {"user": "me", "password": "päss:word"})


@pytest.mark.parametrize(
    ("headers", "options", "status"),
    [
        ({}, {}, 401),
        ({"Authorization": "Bearer me"}, {}, 401),
        ({"Authorization": "Basic !!"}, {}, 403),
        ({"Authorization": "Basic " + base64.b64encode(b"me:").decode()}, {}, 403),
        ({"X-ClickHouse-User": "me"}, {}, 403),
        ({"X-ClickHouse-Key": "right"}, {}, 403),
        ({}, {"user": "me", "password": "wrong"}, 403),
    ],
)
def test_wrong_credentials(headers: dict[str, str], options: dict[str, str], status: int) -> None:
    with pytest.raises(ClickHouseError) as caught:
        Access("me", "right").check(headers, options)
    assert caught.value.status == status
    assert "right" not in repr(Access("me", "right"))


def test_errors_look_like_clickhouse() -> None:
    error = ClickHouseError.from_engine(
        RuntimeError("Query failed: Code: 60. DB::Exception: No table (UNKNOWN_TABLE)")
    )
    assert (error.code, error.status) == (60, 404)
    assert error.body("1.2") == b"Code: 60. DB::Exception: No table (UNKNOWN_TABLE) (version 1.2)\n"
    assert ClickHouseError.from_engine(RuntimeError("odd")).status == 500


def test_the_exception_block_is_found_by_its_tag() -> None:
    transform = pytest.importorskip("clickhouse_connect.driver.transform")
    tag = new_tag()
    error = ClickHouseError.of(395, "FUNCTION_THROW_IF_VALUE_IS_NON_ZERO", "thrown")
    stream = b"\x00\x01 data" + exception_block(error, tag, "26.9")
    found = transform.extract_exception_with_tag(stream, tag)
    assert found is not None
    assert "thrown" in found


def test_summary_and_content_types() -> None:
    summary = json.loads(Progress(read_rows=3, elapsed_ns=7).header())
    assert (summary["read_rows"], summary["elapsed_ns"], summary["written_rows"]) == ("3", "7", "0")
    assert content_type("Native") == "application/octet-stream"
    assert content_type("JSONEachRow").startswith("application/json")
