"""A part that cannot be read, or its projection, as a full disk leaves it: with the projection alone the
sink begins all the same; the gateway sets such a part of a merge aside where its sources are whole, and
where they are not the sink says what it is. One of an insert that was cut off is taken off.
"""

from __future__ import annotations

import http.client
from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from routekeel.infra.local.gateway.part_files import fault_of, part_folders
from routekeel.infra.local.stack import LocalStack
from routekeel.schemas.clickhouse import create_statements
from routekeel.streams.settings import Settings
from routekeel.streams.sinks.items import routes_of
from routekeel.streams.sinks.lease import LeaseTerms
from routekeel.streams.sinks.store import StoreUnavailable, TableStore
from tests.stack.conftest import client_of, config_at
from tests.stack.system import wait_until

pytestmark = pytest.mark.stack
ROWS = 1000
LONG = 20_000


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[LocalStack]:
    """One of its own, with nothing started yet."""
    made = LocalStack(config_at(tmp_path / "state"))
    try:
        yield made
    finally:
        made.down()
        made.wipe()


@pytest.fixture
def client(stack: LocalStack) -> Iterator[Any]:
    """A client of its engine."""
    made = client_of(stack.up(["clickhouse"]))
    yield made
    made.close()


def break_projections(client: Any, table: str) -> None:
    """Empty the marks of every projection of the table's one part."""
    client.command(f"OPTIMIZE TABLE {table} FINAL")
    paths = client.query(
        "SELECT path FROM system.projection_parts WHERE active AND table = {table:String}",
        parameters={"table": table.split(".")[1]},
    ).result_rows
    assert paths
    for (path,) in paths:
        for marks in Path(path).glob("*mrk*"):
            marks.write_bytes(b"")
    client.command("SYSTEM DROP MARK CACHE")


def fill(client: Any) -> None:
    """Two batches of rows."""
    for statement in create_statements("history"):
        client.command(statement)
    for batch in range(2):
        client.command(
            "INSERT INTO history.telemetry (log_topic_id, log_partition, log_offset, log_time, "
            "source_topic_id, source_partition, source_offset) SELECT 'log', number % 2, "
            f"number + {batch * ROWS}, now(), 'source', number % 2, 2 * (number + {batch * ROWS}) "
            f"FROM numbers({ROWS})"
        )


def break_parts(client: Any, table: str) -> list[Path]:
    """Empty the marks of the table's active parts; their folders."""
    where = "WHERE active AND table = {table:String}"
    paths = client.query(
        f"SELECT path FROM system.parts {where}", parameters={"table": table.split(".")[1]}
    ).result_rows
    folders = [Path(path) for (path,) in paths]
    for folder in folders:
        for marks in folder.rglob("*mrk*"):
            marks.write_bytes(b"")
    client.command("SYSTEM DROP MARK CACHE")
    return folders


def reply_of(stack: LocalStack, query: str) -> http.client.HTTPResponse:
    """The reply of a query, which is read as slowly as the test likes."""
    at = stack.up(["clickhouse"])
    connection = http.client.HTTPConnection(at.clickhouse_host, at.clickhouse_port)
    user = f"{at.clickhouse_username}:{at.clickhouse_password}"
    basic = {"Authorization": "Basic " + b64encode(user.encode()).decode()}
    connection.request("POST", "/", query.encode(), basic)
    return connection.getresponse()


COUNT = "SELECT count(), sum(log_offset) FROM history.telemetry WHERE log_offset >= 0"


def test_the_gateway_sets_an_unreadable_part_aside_whose_sources_are_whole(
    stack: LocalStack, client: Any
) -> None:
    fill(client)
    whole = client.query(COUNT).first_row
    client.command("OPTIMIZE TABLE history.telemetry FINAL")
    # Whoever takes a result at leisure must not hold everybody up.
    leisurely = reply_of(
        stack,
        f"SELECT repeat('x', 100) FROM history.telemetry AS t CROSS JOIN numbers({LONG}) AS n",
    )
    assert leisurely.read(10) == b"x" * 10
    (folder,) = break_parts(client, "history.telemetry")
    with pytest.raises(DatabaseError, match="while reading from part"):
        client.query(COUNT)

    def mended() -> bool:
        with suppress(DatabaseError):
            return bool(client.query(COUNT).first_row == whole)
        return False

    wait_until(mended, "the parts that were merged")
    assert whole[0] == 2 * ROWS
    rest = leisurely.read()
    assert b"QUERY_WAS_CANCELLED" in rest and len(rest) < 100 * LONG * whole[0]
    assert not folder.exists()
    assert [found.name for found in (folder.parent / "detached").iterdir()] == [
        f"unreadable_{folder.name}"
    ]


def test_an_insert_that_was_cut_off_with_the_engine_can_be_sent_again(
    stack: LocalStack, client: Any
) -> None:
    """Its part is taken off, and its token is not known any more; that of a whole one is."""
    fill(client)
    whole = client.query(COUNT).first_row
    client.command("SYSTEM STOP MERGES history.telemetry")

    def insert(batch: int) -> None:
        client.command(
            "INSERT INTO history.telemetry (log_topic_id, log_partition, log_offset, log_time) "
            f"SETTINGS insert_deduplication_token = 'token-{batch}' "
            f"SELECT 'log', 0, number + {batch * ROWS}, now() FROM numbers({ROWS})"
        )

    insert(2)
    before = set(part_folders(str(stack.config.state_dir / "clickhouse" / "data" / "store")))
    insert(3)
    after = set(part_folders(str(stack.config.state_dir / "clickhouse" / "data" / "store")))
    (folder,) = map(Path, after - before)
    stack.down()
    assert fault_of(folder) == ""
    for name in ("checksums.txt", "data.cmrk4", "columns.txt"):
        (folder / name).write_bytes(b"")
    assert fault_of(folder, projections=False)
    stack.up(["clickhouse"])
    assert not folder.exists()
    assert client.query(COUNT).first_row[0] == whole[0] + ROWS
    for batch in (2, 3, 3):
        insert(batch)
    assert client.query(COUNT).first_row == (
        whole[0] + 2 * ROWS,
        whole[1] + sum(range(2 * ROWS, 4 * ROWS)),
    )


def test_a_part_without_its_sources_stays_and_the_sink_says_what_it_is(
    stack: LocalStack, client: Any
) -> None:
    fill(client)
    folders = break_parts(client, "history.telemetry")
    settings = Settings()
    route = routes_of(settings)[settings.topics.telemetry]
    store = TableStore(client, "history", LeaseTerms.of(settings))
    with pytest.raises(StoreUnavailable, match="move the part's folder out"):
        store.progress(route, "log", [0, 1])
    log = stack.config.state_dir / "log" / "clickhouse.log"
    wait_until(lambda: "their rows are nowhere else" in log.read_text("utf-8"), "the gateway's log")
    assert all(folder.exists() for folder in folders)


def test_the_sink_reads_how_far_it_is_from_the_rows_when_the_projection_is_broken(
    client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings()
    fill(client)
    break_projections(client, "history.telemetry")
    with pytest.raises(DatabaseError, match="marks"):
        client.query(
            "SELECT log_topic_id, log_partition, max(log_offset) FROM history.telemetry GROUP BY ALL"
        )
    route = routes_of(settings)[settings.topics.telemetry]
    store = TableStore(client, "history", LeaseTerms.of(settings))
    found = store.progress(route, "log", [0, 1])
    assert [found[partition]["telemetry"].stored for partition in (0, 1)] == [1998, 1999]
    assert found[1]["telemetry"].sources == {("source", 0): 3996, ("source", 1): 3998}
    assert "CHECK TABLE `history`.`telemetry`" in caplog.text
    client.query("CHECK TABLE history.telemetry")  # what the warning says helps
    caplog.clear()
    assert store.progress(route, "log", [0, 1]) == found
    assert not caplog.text
