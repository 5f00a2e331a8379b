"""The gateway against ClickHouse's own client, and what of the engine the sink relies on."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from routekeel.infra.local.stack import Endpoints

pytestmark = pytest.mark.stack

TABLE = """
CREATE TABLE {name}
(a UInt64, b String, f Array(Float32), l LowCardinality(String), n Nullable(Int8))
ENGINE = MergeTree ORDER BY a SETTINGS non_replicated_deduplication_window = 1000
"""
COLUMNS = ["a", "b", "f", "l", "n"]


@pytest.fixture
def table(client: Any, request: pytest.FixtureRequest) -> Iterator[str]:
    name = "t_" + "".join(c if c.isalnum() else "_" for c in request.node.name)
    client.command(f"DROP TABLE IF EXISTS {name}")
    client.command(TABLE.format(name=name))
    yield name
    client.command(f"DROP TABLE {name}")


def rows(first: int, count: int) -> list[list[Any]]:
    return [[first + i, f"row {i}", [i + 0.5, -1.0], f"l{i % 3}", None] for i in range(count)]


def arrow(first: int, count: int) -> pa.Table:
    kinds = [pa.uint64(), pa.string(), pa.list_(pa.float32()), pa.string(), pa.int8()]
    columns = list(zip(*rows(first, count), strict=True))
    return pa.table([pa.array(c, k) for c, k in zip(columns, kinds, strict=True)], names=COLUMNS)


@pytest.mark.parametrize("compress", [False, "lz4", "zstd", "gzip"])
def test_rows_go_in_and_come_out(table: str, compress: Any, connect: Any) -> None:
    client = connect(compress=compress)
    wanted = rows(0, 5000)
    assert client.insert(table, wanted, column_names=COLUMNS).written_rows == 5000
    got = client.query(f"SELECT * FROM {table} ORDER BY a").result_rows
    assert [list(row) for row in got] == wanted


def test_arrow_and_frames(client: Any, table: str) -> None:
    assert client.insert_arrow(table, arrow(0, 3)).written_rows == 3
    frame = pd.DataFrame(rows(3, 2), columns=COLUMNS).astype({"n": "Int8"})
    assert client.insert_df(table, frame).written_rows == 2
    got = client.query_arrow(f"SELECT a, b, f FROM {table} ORDER BY a")
    assert got.column("a").to_pylist() == [0, 1, 2, 3, 4]
    assert got.column("f").to_pylist()[1] == [1.5, -1.0]
    assert list(client.query_df(f"SELECT a FROM {table} ORDER BY a")["a"]) == [0, 1, 2, 3, 4]
    assert client.query_np(f"SELECT a FROM {table} ORDER BY a").sum() == 10
    empty = client.query(f"SELECT * FROM {table} WHERE a > 99")
    assert empty.result_rows == []


def test_parameters_are_the_engines(client: Any, table: str) -> None:
    client.insert(table, rows(0, 5), column_names=COLUMNS)
    client.insert(table, [[9, "it's; DROP", [], "", 1]], column_names=COLUMNS)
    query = f"SELECT a FROM {table} WHERE a IN {{ids:Array(UInt64)}} OR b = {{b:String}} ORDER BY a"
    got = client.query(query, parameters={"ids": [1, 3], "b": "it's; DROP"}).result_rows
    assert got == [(1,), (3,), (9,)]


def test_streams_in_pieces(client: Any) -> None:
    with client.query_row_block_stream("SELECT number FROM numbers(2000000)") as blocks:
        sizes = [len(block) for block in blocks]
    assert sum(sizes) == 2_000_000
    assert len(sizes) > 10
    with client.query_arrow_stream("SELECT number FROM numbers(100000)") as batches:
        assert sum(batch.num_rows for batch in batches) == 100_000


def test_a_token_lets_an_insert_happen_once(client: Any, table: str) -> None:
    def insert(first: int, token: str) -> None:
        client.insert_arrow(
            table,
            arrow(first, 100),
            settings={"insert_deduplication_token": token, "async_insert": 0},
        )

    def count() -> int:
        return int(client.command(f"SELECT count() FROM {table}"))

    insert(0, "topic/0/0-99")
    insert(0, "topic/0/0-99")
    assert count() == 100
    insert(500, "topic/0/0-99")  # the token decides, not the data
    assert count() == 100
    insert(0, "topic/1/0-99")  # and another token lets the same data in
    assert count() == 200


def test_same_data_without_token(client: Any, table: str) -> None:
    for _ in range(2):
        client.insert_arrow(table, arrow(0, 10))
    assert int(client.command(f"SELECT count() FROM {table}")) == 10  # by the data's own hash


def test_tokens_reach_materialized_views(client: Any, table: str) -> None:
    client.command(  # without a window of its own a rollup would count repeats
        f"CREATE TABLE {table}_sum (k UInt8, n UInt64) ENGINE = SummingMergeTree ORDER BY k "
        "SETTINGS non_replicated_deduplication_window = 1000"
    )
    client.command(
        f"CREATE MATERIALIZED VIEW {table}_mv TO {table}_sum AS "
        f"SELECT 1 AS k, count() AS n FROM {table} GROUP BY k"
    )
    try:
        for token in ("one", "one", "two"):
            settings = {
                "insert_deduplication_token": token,
                "deduplicate_blocks_in_dependent_materialized_views": 1,
            }
            client.insert_arrow(table, arrow(0, 50), settings=settings)
        assert client.command(f"SELECT sum(n) FROM {table}_sum") == 100
    finally:
        client.command(f"DROP VIEW {table}_mv")
        client.command(f"DROP TABLE {table}_sum")


def test_sessions_keep_what_was_set(connect: Any) -> None:
    one, other = connect(), connect()
    one.command("SET max_threads = 1")
    one.command("CREATE TEMPORARY TABLE mine (x Int32)")
    one.insert("mine", [[7]], column_names=["x"])
    assert one.query("SELECT x FROM mine", settings={"max_block_size": 10}).result_rows == [(7,)]
    assert one.command("SELECT getSetting('max_threads')") == 1
    assert one.command("SELECT getSetting('max_block_size')") != 10  # was for one query only
    with pytest.raises(DatabaseError, match="mine"):
        other.query("SELECT x FROM mine")
    stray = connect(session_id=one.params["session_id"])
    assert stray.command("SELECT getSetting('max_threads')") == 1


def test_headers_say_what_happened(endpoints: Endpoints, client: Any, table: str, raw: Any) -> None:
    status, headers, _ = raw(
        "POST",
        b"1\tx\t[1]\tl\t\\N\n",
        query=f"INSERT INTO {table} FORMAT TSV",
        query_id="mine-1",
        database=endpoints.clickhouse_database,
    )
    assert status == 200
    assert headers["X-ClickHouse-Query-Id"] == "mine-1"
    assert '"written_rows": "1"' in headers["X-ClickHouse-Summary"]
    assert headers["X-ClickHouse-Timezone"]
    status, headers, _ = raw(
        "POST",
        b"SELECT 1",
        {"Accept-Encoding": "gzip", "X-ClickHouse-Format": "CSV"},
        enable_http_compression="1",
    )
    assert (headers["Content-Encoding"], headers["X-ClickHouse-Format"]) == ("gzip", "CSV")


def test_forms_carry_query_and_parameters(connect: Any) -> None:
    client = connect(form_encode_query_params=True)
    got = client.query("SELECT {a:UInt8} + 1 AS x", parameters={"a": 4}).result_rows
    assert got == [(5,)]


def test_fifty_clients_at_once(table: str, client: Any, connect: Any) -> None:
    def work(number: int) -> int:
        own = connect()
        for batch in range(10):
            own.insert(table, rows(number * 10_000 + batch * 100, 20), column_names=COLUMNS)
            own.query(f"SELECT count() FROM {table}")
        return int(own.command(f"SELECT count() FROM {table} WHERE intDiv(a, 10000) = {number}"))

    with ThreadPoolExecutor(50) as pool:
        assert list(pool.map(work, range(50))) == [200] * 50
    assert client.command(f"SELECT count(), uniqExact(a) FROM {table}") == ["10000", "10000"]
