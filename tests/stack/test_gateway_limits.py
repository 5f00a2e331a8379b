"""The gateway under misuse: errors, sessions, credentials, greedy queries, clients that go."""

from __future__ import annotations

import http.client
import threading
import time
from base64 import b64encode
from typing import Any

import numpy as np
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError, StreamFailureError

from routekeel.infra.local.stack import Endpoints

pytestmark = pytest.mark.stack


@pytest.mark.parametrize(
    ("query", "code", "status"),
    [
        ("SELEC 1", 62, 400),
        ("SELECT * FROM nowhere", 60, 404),
        ("SELECT nothing FROM system.one", 47, 404),
        ("SELECT 1 SETTINGS nonsense = 1", 115, 400),
        ("SELECT throwIf(number = 3) FROM numbers(10)", 395, 500),
        ("SELECT 1; SELECT 2", 62, 400),
        ("SELECT 1 INTO OUTFILE 'x'", 358, 500),
    ],
)
def test_errors_carry_code_and_text(query: str, code: int, status: int, raw: Any) -> None:
    got, headers, body = raw("POST", query.encode())
    assert (got, headers["X-ClickHouse-Exception-Code"]) == (status, str(code))
    assert body.startswith(f"Code: {code}. DB::Exception: ".encode())
    assert b"(version " in body


def test_an_error_in_the_middle_of_a_stream_is_told(client: Any) -> None:
    query = "SELECT number, throwIf(number = 9000000) FROM numbers(10000000)"
    with (
        pytest.raises(StreamFailureError, match="throwIf"),
        client.query_row_block_stream(query) as blocks,
    ):
        for _ in blocks:
            pass


def test_a_session_answers_one_at_a_time(raw: Any) -> None:
    slow = threading.Thread(
        target=raw, args=("POST", b"SELECT sleep(2)"), kwargs={"session_id": "busy"}
    )
    slow.start()
    codes = set()
    while slow.is_alive():
        _, headers, _ = raw("POST", b"SELECT 1", session_id="busy")
        codes.add(headers.get("X-ClickHouse-Exception-Code"))
    slow.join()
    assert "373" in codes
    _, headers, _ = raw("POST", b"SELECT 1", session_id="never seen", session_check="1")
    assert headers["X-ClickHouse-Exception-Code"] == "372"


def test_get_only_reads(raw: Any) -> None:
    status, headers, body = raw("GET", query="SELECT 1 AS x FORMAT JSONEachRow")
    assert (status, body) == (200, b'{"x":1}\n')
    assert headers["X-ClickHouse-Format"] == "JSONEachRow"
    for query in ("CREATE TABLE no (a Int8) ENGINE = Memory", "INSERT INTO t VALUES (1)"):
        status, headers, _ = raw("GET", query=query)
        assert headers["X-ClickHouse-Exception-Code"] in ("164", "60")
    raw("POST", b"SET max_threads = 1", session_id="reads")
    status, headers, _ = raw(
        "GET", query="CREATE TABLE no (a Int8) ENGINE = Memory", session_id="reads"
    )
    assert headers["X-ClickHouse-Exception-Code"] == "164"
    assert raw("GET", query="SELECT 2", session_id="reads")[2] == b"2\n"


def test_a_password_is_always_wanted(endpoints: Endpoints, raw: Any) -> None:
    for wrong in (
        {"X-ClickHouse-User": endpoints.clickhouse_username},
        {"Authorization": "Basic eDp5"},
    ):
        assert raw("POST", b"SELECT 1", headers=wrong)[0] == 403
    connection = http.client.HTTPConnection(endpoints.clickhouse_host, endpoints.clickhouse_port)
    connection.request("POST", "/", b"SELECT 1")
    assert connection.getresponse().status == 401
    connection = http.client.HTTPConnection(endpoints.clickhouse_host, endpoints.clickhouse_port)
    connection.request("GET", "/ping")
    assert connection.getresponse().read() == b"Ok.\n"


def test_a_query_cannot_take_the_machine(client: Any) -> None:
    greedy = "SELECT length(groupArray(number)) FROM numbers(1000000000)"
    for settings in ({}, {"max_memory_usage": 10**12}, {"max_memory_usage": 0}):
        with pytest.raises(DatabaseError, match="memory limit"):
            client.query(greedy, settings=settings)
    began = time.monotonic()
    with pytest.raises(DatabaseError, match="TIMEOUT_EXCEEDED"):
        client.query(
            "SELECT count() FROM numbers(100000000000)", settings={"max_execution_time": 1}
        )
    assert time.monotonic() - began < 5
    assert client.command("SELECT 1") == 1


def test_ping_answers_whatever_the_queries_do(endpoints: Endpoints, connect: Any) -> None:
    stop = threading.Event()

    def work() -> None:
        client = connect()
        while not stop.is_set():
            client.query("SELECT sum(sipHash64(number)) FROM numbers(5000000)")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    waits = []
    for _ in range(20):
        began = time.monotonic()
        connection = http.client.HTTPConnection(
            endpoints.clickhouse_host, endpoints.clickhouse_port, timeout=5
        )
        connection.request("GET", "/ping")
        assert connection.getresponse().status == 200
        waits.append(time.monotonic() - began)
    stop.set()
    for thread in threads:
        thread.join()
    assert np.median(waits) < 0.5


def test_a_select_ends_with_its_client(endpoints: Endpoints, client: Any) -> None:
    marker = "SELECT count() FROM numbers(1000000000000) WHERE sipHash64(number) = 1"
    connection = http.client.HTTPConnection(endpoints.clickhouse_host, endpoints.clickhouse_port)
    user = f"{endpoints.clickhouse_username}:{endpoints.clickhouse_password}"
    basic = {"Authorization": "Basic " + b64encode(user.encode()).decode()}
    connection.request("POST", "/", marker.encode(), basic)
    running = f"SELECT count() FROM system.processes WHERE query = '{marker}'"
    deadline = time.monotonic() + 10
    while client.command(running) == 0:
        assert time.monotonic() < deadline
    connection.close()
    while client.command(running) == 1:
        assert time.monotonic() < deadline
