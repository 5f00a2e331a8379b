"""A full disk under the ClickHouse engine: no insert is acknowledged that is not stored."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from routekeel.infra.local.stack import LocalStack
from routekeel.schemas.clickhouse import create_statements
from tests.chaos.disk import NotMounted, SmallDisk
from tests.stack.conftest import client_of, config_at

pytestmark = pytest.mark.stack
ROWS = [[n] for n in range(1000)]
MANY = 3000
AT_ONCE, UNDONE, UNDONE_WITHIN_S = 3, 5, 180
COUNT = "SELECT count(), uniqExact(log_offset) FROM history.telemetry WHERE log_offset >= 0"


@pytest.fixture
def disk_and_client(tmp_path: Path) -> Iterator[tuple[SmallDisk, Any]]:
    """An engine on a small disk, and a client of it."""
    stack = LocalStack(config_at(tmp_path / "state"))
    try:
        disk = SmallDisk(tmp_path / "state" / "clickhouse", 256)
    except NotMounted as error:
        pytest.skip(str(error))
    try:
        client = client_of(stack.up(["clickhouse"]), autogenerate_session_id=False)
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


def test_what_a_filling_disk_cuts_off_is_undone_and_can_be_sent_again(
    disk_and_client: tuple[SmallDisk, Any], tmp_path: Path
) -> None:
    """The engine answers such inserts with success, and no error is counted (26.9). Several at a time."""
    disk, client = disk_and_client
    for statement in create_statements("history"):
        client.command(statement)
    rng = random.Random(7)
    store = tmp_path / "state" / "clickhouse" / "data" / "store"

    def insert(token: int) -> bool:
        rows = f"SELECT 'log', 0, number + {token * MANY}, now(), 'source', 0, number FROM numbers({MANY})"
        columns = (
            "log_topic_id, log_partition, log_offset, log_time, source_topic_id, source_partition"
        )
        try:
            client.command(
                f"INSERT INTO history.telemetry ({columns}, source_offset) "
                f"SETTINGS insert_deduplication_token = 't{token}' {rows}"
            )
        except DatabaseError as error:
            refused = ("UNKNOWN_STATUS_OF_INSERT", "NOT_ENOUGH_SPACE", "UNKNOWN_TABLE", "DROPPED")
            assert any(reason in str(error) for reason in refused), error
            return False
        return True

    deadline = time.monotonic() + UNDONE_WITHIN_S

    def insert_at_last(token: int) -> None:
        while not insert(token):
            assert time.monotonic() < deadline, "with room again nothing is stored"

    def stored() -> tuple[int, int]:
        while True:
            try:
                return tuple(client.query(COUNT).first_row)
            except DatabaseError:  # a merge that was cut off is found by this
                assert time.monotonic() < deadline, "the table is not mended"

    done = 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        while len(list(store.glob("*/*/detached/unreadable_*_0"))) < UNDONE:
            assert time.monotonic() < deadline, "no part was cut off"
            answers = [pool.submit(insert, done + n) for n in range(AT_ONCE)]
            time.sleep(rng.uniform(0, 0.1))  # anywhere in the inserts: that is what is tried
            disk.fill()
            wait(answers, timeout=1)  # they may wait for room
            disk.free()
            for number, answer in enumerate(answers):
                if not answer.result():
                    insert_at_last(done + number)
            done += AT_ONCE
            assert stored() == (done * MANY, done * MANY)
