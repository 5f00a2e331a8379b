"""A full disk under the ClickHouse engine: no insert is acknowledged that is not stored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from routekeel.infra.local.stack import LocalStack
from tests.chaos.disk import NotMounted, SmallDisk
from tests.stack.conftest import client_of, config_at

pytestmark = pytest.mark.stack
ROWS = [[n] for n in range(1000)]


@pytest.fixture
def disk_and_client(tmp_path: Path) -> Iterator[tuple[SmallDisk, Any]]:
    """An engine on a small disk, and a client of it."""
    stack = LocalStack(config_at(tmp_path / "state"))
    try:
        disk = SmallDisk(tmp_path / "state" / "clickhouse", 256)
    except NotMounted as error:
        pytest.skip(str(error))
    try:
        client = client_of(stack.up(["clickhouse"]))
        yield disk, client
        client.close()
    finally:
        stack.down()
        disk.close()
        stack.wipe()


def test_an_insert_into_a_full_disk_is_not_acknowledged(
    disk_and_client: tuple[SmallDisk, Any],
) -> None:
    disk, client = disk_and_client
    client.command(
        "CREATE TABLE t (n Int64) ENGINE = MergeTree ORDER BY n "
        "SETTINGS non_replicated_deduplication_window = 100"
    )

    def insert(token: str) -> None:
        settings = {"insert_deduplication_token": token}
        client.insert("t", ROWS, column_names=["n"], settings=settings)

    def count() -> int:
        return int(client.command("SELECT count() FROM t"))

    insert("first")
    disk.fill()
    with pytest.raises(DatabaseError, match=r"NOT_ENOUGH_SPACE .*UNKNOWN_STATUS_OF_INSERT"):
        insert("second")
    assert count() == 1000
    disk.free()
    insert("second")
    assert count() == 2000
    insert("second")
    assert count() == 2000
