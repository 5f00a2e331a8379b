"""Every recipe of docs/SQL.md runs on stored data, and its numbers are those that NumPy gets.

The rows go in by the sink's own way (columns, Arrow, ClickHouse); the expectations come from the
records' bytes, by other means.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from routekeel.infra.local.stack import LocalStack
from routekeel.schemas.tables import DEAD_LETTERS_TABLE, TABLES, TELEMETRY_TABLE
from routekeel.streams.history.sql import QueryFailed, QueryResult, run_query
from routekeel.streams.history.store import apply_schema, connect
from routekeel.streams.settings import Settings
from routekeel.streams.sinks.block import Block, Item
from routekeel.streams.sinks.payload import FORMAT, build_payload
from routekeel.streams.topology.records import Source, SourceRecord
from tests.stack.system import System
from tests.unit.sink_records import START_MS, letter_fields, telemetry_fields

pytestmark = pytest.mark.stack
# The rows' times are fixed: with a TTL they would be gone one day.
FOR_EVER = {table.name: 0 for table in TABLES}
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "SQL.md"
RECIPE = re.compile(r"^## (\d+)\. (.+?)\n(.*?)```sql\n(.*?)```", re.M | re.S)
RECIPES = {int(n): (title, text, query) for n, title, text, query in
           RECIPE.findall(DOCUMENT.read_text(encoding="utf-8"))}  # fmt: skip
CHUNKS, LAYERS, EXPERTS = 240, 3, 8
Records = list[dict[str, Any]]


class Stored:
    """The records that were stored, and recipes run on them."""

    def __init__(self, settings: Settings, records: Records, letters: Records) -> None:
        self.settings, self.records, self.letters = settings, records, letters

    def ask(self, recipe: int) -> list[dict[str, Any]]:
        result = run_query(self.settings, RECIPES[recipe][2])
        return [dict(zip(result.columns, row, strict=True)) for row in result.rows]


def f4(record: dict[str, Any], name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A per-layer column of a record, as it is stored."""
    decimals = {"route_entropy": 4}.get(name, 6)
    return np.round(np.frombuffer(record[name], "<f4").astype(float), decimals)


@pytest.fixture(scope="module")
def stored(local_stack: LocalStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stored]:
    local_stack.up()
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    name = f"recipes-{seed % 10**6}"
    settings = System(local_stack, tmp_path_factory.mktemp("recipes"), name).settings
    client = connect(settings.clickhouse)
    apply_schema(client, settings.clickhouse, FOR_EVER)
    records = [
        telemetry_fields(
            offset, layers=LAYERS, experts=EXPERTS, seed=seed, worker_id=f"w{offset % 3}",
            provenance_probe="measured" if offset % 4 == 0 else "unavailable",
            dropped_before=offset % 5, state_reset="model_changed" if offset % 50 == 7 else "",
        )
        for offset in range(CHUNKS)
    ]  # fmt: skip
    letters = [letter_fields(offset) for offset in range(31)]
    for table, rows in ((TELEMETRY_TABLE, records), (DEAD_LETTERS_TABLE, letters)):
        items = [
            Item(SourceRecord(i, START_MS + i, b"k", b"v", ()), fields, None, 1, 1)
            for i, fields in enumerate(rows)
        ]
        payload = build_payload(table, Block.of(items), Source("log", "log-1", 0))
        columns = [column.name for column in table.filled]
        place = f"{settings.clickhouse.database}.{table.name}"
        client.raw_insert(place, columns, payload.data, fmt=FORMAT)
    yield Stored(settings, records, letters)
    client.command(f"DROP DATABASE {settings.clickhouse.database}")
    client.close()


def test_the_document_is_complete() -> None:
    assert sorted(RECIPES) == list(range(1, len(RECIPES) + 1))
    assert len(RECIPES) >= 10
    assert all("Caveat:" in text for _, text, _ in RECIPES.values())
    blocks = DOCUMENT.read_text(encoding="utf-8").count("```sql")
    assert blocks == len(RECIPES)


@pytest.mark.parametrize("number", sorted(RECIPES))
def test_every_recipe_runs_and_answers(stored: Stored, number: int) -> None:
    assert stored.ask(number), RECIPES[number][0]


def test_least_steady_sessions(stored: Stored) -> None:
    jitter: dict[str, list[float]] = defaultdict(list)
    flips: dict[str, list[float]] = defaultdict(list)
    for record in stored.records:  # every row has 4 tokens, so the plain mean is the weighted one
        jitter[record["session_id"]] += f4(record, "delta_w_hat").tolist()
        flips[record["session_id"]] += (f4(record, "winner_flips_base") / 4).tolist()
    rows = stored.ask(1)
    order = sorted(jitter, key=lambda session: -np.mean(jitter[session]))
    assert [row["session_id"] for row in rows] == order
    for row in rows:
        session = row["session_id"]
        assert row["jitter"] == pytest.approx(np.mean(jitter[session]), abs=2e-6)
        assert row["flips_per_token"] == pytest.approx(np.mean(flips[session]), abs=1e-4)


def test_sensitivity_by_ambiguity(stored: Stored) -> None:
    groups: dict[tuple[int, float], list[float]] = defaultdict(list)
    for record in stored.records:
        a_star = np.float32(np.round(record["a_star"], 4))
        a_from = min(np.floor(float(a_star) * 5) / 5, 0.8)
        for layer, g in enumerate(f4(record, "g_base")):
            groups[layer, round(float(a_from), 1)].append(float(g))
    rows = stored.ask(2)
    found = {(row["layer"], round(row["a_from"], 1)): row["g_base_mean"] for row in rows}
    assert set(found) == set(groups)
    for key, values in groups.items():
        assert found[key] == pytest.approx(np.mean(values), abs=2e-6)


def test_tail_of_g(stored: Stored) -> None:
    groups: dict[tuple[int, str], list[float]] = defaultdict(list)
    for record in stored.records:
        minute = record["event_time_us"] // 60_000_000
        groups[minute, record["model"]] += f4(record, "g_base_max").tolist()
    rows = stored.ask(3)
    assert len(rows) == len(groups)
    for row, key in zip(rows, sorted(groups), strict=True):
        assert (row["model"], row["rows"]) == (key[1], len(groups[key]))
        expected = np.quantile(groups[key], 0.99)
        assert row["g_base_max_p99"] == pytest.approx(expected, abs=2e-6)


def test_flips_by_layer(stored: Stored) -> None:
    flips: dict[tuple[str, int], list[float]] = defaultdict(list)
    for record in stored.records:
        for layer, n in enumerate(f4(record, "winner_flips_controlled")):
            flips[record["model"], layer].append(n / 4)
    rows = {(r["model"], r["layer"]): r["flips_controlled"] for r in stored.ask(4)}
    assert rows == {k: pytest.approx(np.mean(v), abs=1e-4) for k, v in flips.items()}


def test_load_of_experts(stored: Stored) -> None:
    load: dict[tuple[str, int], Any] = {}
    for record in stored.records:
        counts = np.frombuffer(record["load"], "<u2").reshape(LAYERS, EXPERTS)
        for layer in range(LAYERS):
            key = (record["model"], layer)
            load[key] = load.get(key, 0) + counts[layer].astype(int)
    for row in stored.ask(5):
        counts = load[row["model"], row["layer"]]
        assert row["choices"] == counts.sum()
        assert row["max_over_mean"] == pytest.approx(counts.max() / counts.mean(), abs=1e-4)
        assert counts[row["busiest_expert"]] == counts.max()


def test_entropy_by_layer(stored: Stored) -> None:
    values: dict[tuple[str, int], list[float]] = defaultdict(list)
    for record in stored.records:
        for layer, h in enumerate(f4(record, "route_entropy")):
            values[record["model"], layer].append(h)
    for row in stored.ask(6):
        mean = np.mean(values[row["model"], row["layer"]])
        assert row["entropy_nats"] == pytest.approx(mean, abs=1e-4)
        assert row["share_of_largest"] == pytest.approx(mean / np.log(EXPERTS), abs=1e-4)
        assert row["provenance"] == ["derived"]


def test_life_of_a_session(stored: Stored) -> None:
    last = stored.records[-1]["session_id"]
    life = [record for record in stored.records if record["session_id"] == last]
    rows = stored.ask(7)
    assert [row["position"] for row in rows] == [record["position"] for record in life]
    for row, record in zip(rows, life, strict=True):
        assert row["jitter"] == pytest.approx(f4(record, "delta_w_hat").mean(), abs=2e-6)
        assert row["a_star"] == pytest.approx(record["a_star"], abs=1e-4)


def test_event_to_row(stored: Stored) -> None:
    (row,) = stored.ask(8)
    client = connect(stored.settings.clickhouse, database=stored.settings.clickhouse.database)
    inserted = client.command("SELECT toUnixTimestamp64Milli(any(inserted_at)) FROM telemetry")
    client.close()
    ages = [int(str(inserted)) / 1e3 - r["event_time_us"] / 1e6 for r in stored.records]
    assert row["chunks"] == CHUNKS
    assert row["p95_s"] == pytest.approx(np.quantile(ages, 0.95), abs=2e-3)


def test_provenance_and_letters_and_workers(stored: Stored) -> None:
    families = {row["family"]: row for row in stored.ask(9)}
    assert (families["probe"]["measured"], families["probe"]["unavailable"]) == (60, 180)
    assert families["route"]["derived"] == CHUNKS
    reasons = {row["error_class"]: row["letters"] for row in stored.ask(10)}
    assert reasons == {"unknown_schema_id": 16, "bad_body": 15}
    workers = {row["worker_id"]: row for row in stored.ask(12)}
    for number in range(3):
        mine = [r for i, r in enumerate(stored.records) if i % 3 == number]
        row = workers[f"w{number}"]
        assert row["chunks"] == len(mine)
        assert row["dropped_by_sdk"] == sum(r["dropped_before"] for r in mine)
        assert row["state_resets"] == sum(r["state_reset"] != "" for r in mine)


def test_limits_of_control(stored: Stored) -> None:
    held = [f4(record, "held") for record in stored.records]
    for row in stored.ask(11):
        share = np.mean([h[row["layer"]] / 4 for h in held])
        assert row["held_share"] == pytest.approx(share, abs=1e-4)
        assert row["saturated_share"] == 0


def test_queries_cannot_write_and_errors_say_what_is_wrong(stored: Stored) -> None:
    for query in ("DROP TABLE telemetry", "INSERT INTO telemetry (log_topic) VALUES ('x')"):
        with pytest.raises(QueryFailed):
            run_query(stored.settings, query)
    with pytest.raises(QueryFailed, match="nonsense"):
        run_query(stored.settings, "SELECT nonsense FROM telemetry")
    result: QueryResult = run_query(
        stored.settings, "SELECT {n:Int32} + 1 AS m;", parameters={"n": 41}
    )
    assert (list(result.columns), [list(row) for row in result.rows]) == (["m"], [[42]])
    assert len(run_query(stored.settings, "SELECT layer FROM telemetry").rows) == CHUNKS * LAYERS
