"""Run as a child process: creates the tables in chDB, fills them, prints what it saw as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
from chdb import session

from routekeel.schemas.clickhouse import create_statements
from routekeel.schemas.records import DEAD_LETTER
from routekeel.schemas.rows import ColumnData, Coordinates, columns
from routekeel.schemas.tables import TABLES, Table
from tests.golden.examples import example

RECORDS = 200
TIME_MS = 1_790_000_000_000  # 2026-09-21 14:13:20
Query = Callable[[str], list[list[Any]]]


def opened(path: Path) -> tuple[Any, Query]:
    """A session and a function that returns rows as lists."""
    engine = session.Session(str(path / "data"))

    def query(sql: str) -> list[list[Any]]:
        text = str(engine.query(sql, "JSONCompactEachRow"))
        return [json.loads(line) for line in text.splitlines() if line]

    return engine, query


def records_of(table: Table) -> list[dict[str, Any]]:
    """Records of 2 layers and 3 tokens; session and source offset follow the number."""
    out = []
    for i in range(RECORDS):
        value = example(table.record)
        value |= {"source_topic_id": "src", "source_partition": 1, "source_offset": i}
        if table.record is not DEAD_LETTER:
            value |= {"session_id": f"s{i}", "event_time_us": TIME_MS * 1000 + i}
        out.append(value)
    return out


def arrow(data: ColumnData) -> pa.Array:
    """As the sink does it."""
    if data.offsets is not None:
        return pa.ListArray.from_arrays(pa.array(data.offsets), pa.array(data.values))
    return pa.array(data.values, mask=data.nulls)


def insert(query: Query, path: Path, table: Table) -> dict[str, ColumnData]:
    """One batch under a token that names its offsets."""
    at = Coordinates("log", "tid", 1, np.arange(RECORDS), TIME_MS + np.arange(RECORDS))
    data = columns(table, records_of(table), at)
    file = path / f"{table.name}.arrow"
    batch = pa.table({name: arrow(column) for name, column in data.items()})
    pyarrow.feather.write_feather(batch, str(file), compression="uncompressed")
    names = ", ".join(f"`{name}`" for name in data)
    query(
        f"INSERT INTO routekeel.{table.name} ({names}) "
        f"SETTINGS insert_deduplication_token = 'tid/1/0-{RECORDS - 1}' "
        f"SELECT {names} FROM file('{file}', Arrow)"
    )
    return data


def counts(query: Query) -> dict[str, int]:
    """Rows per table."""
    return {t.name: int(query(f"SELECT count() FROM routekeel.{t.name}")[0][0]) for t in TABLES}


def differences(engine: Any, table: Table, data: dict[str, ColumnData]) -> list[str]:
    """The columns whose stored values are not those that were inserted."""
    order = ", ".join(name for name in ("log_offset", "position", "layer") if name in data)
    sql = f"SELECT * FROM routekeel.{table.name} ORDER BY {order}"
    sql += " SETTINGS output_format_arrow_string_as_string = 0"
    stored = pa.ipc.open_file(engine.query(sql, "Arrow").bytes()).read_all()
    return [
        f"{table.name}.{name}"
        for name, column in data.items()
        if plain(stored[name]) != plain(arrow(column))
    ]


def plain(column: Any) -> list[str]:
    """Values as texts (so that NaN equals itself), strings as bytes, times as numbers."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    return [repr(binary(value)) for value in column.to_pylist()]


def binary(value: Any) -> Any:
    """Texts as bytes, in lists too."""
    if isinstance(value, list):
        return [binary(item) for item in value]
    return value.encode() if isinstance(value, str) else value


def main(path: Path) -> dict[str, Any]:
    """Everything in one pass, in the order in which a sink would meet it."""
    engine, query = opened(path)
    # The records have a fixed time, so these tables must keep rows for ever.
    for_ever = create_statements(ttl_days=dict.fromkeys((t.name for t in TABLES), 0))
    for statement in for_ever * 2 + create_statements("by_default"):
        engine.query(statement)
    out: dict[str, Any] = {"columns": {}, "differences": []}
    for table in TABLES:
        out["columns"][table.name] = query(
            "SELECT name, type, comment FROM system.columns WHERE database = 'routekeel' "
            f"AND table = '{table.name}' ORDER BY position"
        )
        data = insert(query, path, table)
        out["differences"] += differences(engine, table, data)
    out["counts"] = counts(query)
    for table in TABLES:
        insert(query, path, table)
    out["after_repeat"] = counts(query)
    last = (
        "SELECT max(log_offset) FROM routekeel.{} WHERE log_topic_id = 'tid' AND log_partition = 1"
    )
    explained = query("EXPLAIN " + last.format("telemetry"))
    out["explain_last_offset"] = "\n".join(str(row[0]) for row in explained)
    out["last_offset"] = {t.name: int(query(last.format(t.name))[0][0]) for t in TABLES}
    session_rows = "SELECT count() FROM routekeel.{} WHERE session_id = 's7'"
    source_rows = (
        "SELECT count() FROM routekeel.{} WHERE source_topic_id = 'src' AND source_partition = 1 "
        "AND source_offset BETWEEN 10 AND 19"
    )
    both = ("telemetry", "weights")
    out["session_rows"] = [int(query(session_rows.format(name))[0][0]) for name in both]
    out["source_rows"] = [int(query(source_rows.format(name))[0][0]) for name in both]
    query("DELETE FROM routekeel.telemetry WHERE source_offset = 199")
    out["after_delete"] = counts(query)["telemetry"]
    out["last_offset_after_delete"] = int(query(last.format("telemetry"))[0][0])
    parts = "SELECT DISTINCT partition FROM system.parts WHERE database = 'routekeel' AND active"
    out["partitions"] = [row[0] for row in query(parts)]
    engine.close()
    _, query = opened(path)
    out["reopened"] = counts(query)["telemetry"]
    return out


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
