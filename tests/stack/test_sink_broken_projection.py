"""A part that cannot be read, or its projection, as a merge on a full disk leaves it: with the projection
alone the sink begins all the same, else it says what helps, and that does help.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from routekeel.infra.local.stack import LocalStack
from routekeel.schemas.clickhouse import create_statements
from routekeel.streams.settings import Settings
from routekeel.streams.sinks.items import routes_of
from routekeel.streams.sinks.lease import LeaseTerms
from routekeel.streams.sinks.store import StoreUnavailable, TableStore
from tests.stack.conftest import client_of, config_at

pytestmark = pytest.mark.stack
ROWS = 1000


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


def test_of_a_part_that_cannot_be_read_the_sink_says_what_brings_its_rows_back(
    stack: LocalStack, client: Any, tmp_path: Path
) -> None:
    fill(client)
    client.command("OPTIMIZE TABLE history.telemetry FINAL")
    parts = "SELECT path FROM system.parts WHERE active AND table = 'telemetry'"
    ((path,),) = client.query(parts).result_rows
    for marks in Path(path).rglob("*mrk*"):
        marks.write_bytes(b"")
    client.command("SYSTEM DROP MARK CACHE")
    settings = Settings()
    route = routes_of(settings)[settings.topics.telemetry]
    with pytest.raises(StoreUnavailable, match="move the part's folder out"):
        TableStore(client, "history", LeaseTerms.of(settings)).progress(route, "log", [0, 1])
    stack.down()
    Path(path).rename(tmp_path / "part")
    again = client_of(stack.up(["clickhouse"]))
    found = TableStore(again, "history", LeaseTerms.of(settings)).progress(route, "log", [0, 1])
    assert [found[partition]["telemetry"].stored for partition in (0, 1)] == [1998, 1999]
    assert again.query("SELECT count() FROM history.telemetry").first_row == (2 * ROWS,)
    again.close()


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
