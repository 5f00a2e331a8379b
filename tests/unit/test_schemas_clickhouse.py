"""The DDL runs in the ClickHouse engine, takes what rows.py makes, and its promises hold there.

chDB allows one engine per process, so everything runs in one child process that reports as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from routekeel.schemas.clickhouse import create_statements, create_table, name, text
from routekeel.schemas.tables import TABLES, TELEMETRY_TABLE

ROWS = {
    "telemetry": 400,
    "telemetry_tokens": 1200,
    "weights": 400,
    "state_snapshots": 200,
    "dead_letters": 200,
}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    pytest.importorskip("chdb")
    path = tmp_path_factory.mktemp("chdb")
    command = [sys.executable, "-m", "tests.golden.engine_child", str(path)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=root)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
def test_every_statement_runs_twice_and_gives_every_column(report: dict[str, Any]) -> None:
    for table in TABLES:
        expected = [[column.name, column.type, column.doc] for column in table.columns]
        assert report["columns"][table.name] == expected


@pytest.mark.slow
def test_what_rows_makes_is_taken_and_comes_back(report: dict[str, Any]) -> None:
    assert report["counts"] == ROWS
    assert report["differences"] == []


@pytest.mark.slow
def test_a_repeated_token_changes_nothing(report: dict[str, Any]) -> None:
    assert report["after_repeat"] == ROWS


@pytest.mark.slow
def test_the_largest_offsets_come_from_the_projection(report: dict[str, Any]) -> None:
    assert "last_offset" in report["explain_last_offset"]
    assert report["last_offset"] == dict.fromkeys(ROWS, 199)


@pytest.mark.slow
def test_a_session_and_a_source_range_use_their_projections(report: dict[str, Any]) -> None:
    assert report["session_rows"] == [2, 2]
    assert report["source_rows"] == [20, 20]


@pytest.mark.slow
def test_a_repair_can_delete_rows(report: dict[str, Any]) -> None:
    assert report["after_delete"] == 398
    assert report["last_offset_after_delete"] == 198


@pytest.mark.slow
def test_the_tables_open_again_without_the_codec_setting(report: dict[str, Any]) -> None:
    assert report["reopened"] == 398


@pytest.mark.slow
def test_the_day_of_the_log_decides_the_partition(report: dict[str, Any]) -> None:
    assert report["partitions"] == ["20260921"]


def test_a_cluster_has_replicated_parts_behind_distributed_tables() -> None:
    statements = create_statements("db", cluster="main")
    assert len(statements) == 1 + 2 * len(TABLES)
    assert all("ON CLUSTER `main`" in statement for statement in statements)
    local, distributed = statements[1:3]
    assert "`db`.`telemetry_local`" in local
    assert "ReplicatedMergeTree('/clickhouse/tables/{shard}/" in local
    assert "    replicated_deduplication_window = 10000" in local
    assert "Distributed('main', 'db', 'telemetry_local', log_partition)" in distributed


def test_days_and_codec_are_parameters() -> None:
    assert "TTL" not in create_table(TELEMETRY_TABLE, ttl_days=0)
    assert "INTERVAL 5 DAY" in create_table(TELEMETRY_TABLE, ttl_days=5)
    plain = "\n".join(create_statements(float_codec="ZSTD(1)"))
    assert "ALP" not in plain
    assert "enable_alp_codec" not in plain
    with pytest.raises(ValueError, match="do not exist: nothing"):
        create_statements(ttl_days={"nothing": 3})


@pytest.mark.parametrize("identifier", ["", "a`b", "a b", "a;b", "a.b"])
def test_only_plain_identifiers(identifier: str) -> None:
    with pytest.raises(ValueError, match="plain identifier"):
        name(identifier)


def test_texts_are_escaped() -> None:
    assert text("a'b\\") == "'a\\'b\\\\'"
