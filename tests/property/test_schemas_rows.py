"""Rows: the vectorised columns against a loop over every value of every record."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from routekeel.schemas.columns import Column, Origin
from routekeel.schemas.fields import Record
from routekeel.schemas.matrices import matrix, nested
from routekeel.schemas.records import DEAD_LETTER, TELEMETRY, WEIGHTS
from routekeel.schemas.rows import ColumnData, Coordinates, columns
from routekeel.schemas.tables import Grain, Table, tables_of
from tests.property.schema_values import values

EXAMPLES = settings(max_examples=15, deadline=None, derandomize=True)


def rounded(value: float, decimals: int | None) -> float | None:
    if math.isnan(value):
        return None
    if decimals is None or math.isinf(value):
        return float(np.float32(value))
    return float(np.float32(np.rint(value * 10.0**decimals) / 10.0**decimals + 0.0))


def slow_rows(table: Table, records: list[dict[str, Any]], at: Coordinates) -> list[dict[str, Any]]:
    out = []
    for index, value in enumerate(records):
        if table.needs and not value[table.needs]:
            continue
        group = value.get("token_rows")
        if table.grain is Grain.CHUNK:
            cells = [(0, 0)]
        elif table.grain is Grain.LAYER:
            cells = [(0, layer) for layer in range(len(value["layers"]))]
        else:
            cells = [(t, n) for t in range(group["steps"]) for n in range(len(value["layers"]))]
        for token, layer in cells:
            out.append({c.name: slow(c, value, at, index, token, layer) for c in table.filled})
    return out


def slow(
    column: Column, value: dict[str, Any], at: Coordinates, index: int, token: int, layer: int
) -> Any:
    log = {"log_topic": at.topic, "log_topic_id": at.topic_id, "log_partition": at.partition}
    log |= {"log_offset": int(at.offsets[index]), "log_time": int(at.times_ms[index])}
    if column.origin is Origin.LOG:
        return log[column.name]
    if column.origin is Origin.LAYER_ID:
        return value["layers"][layer]
    assert column.field is not None
    name = column.field.name
    if column.origin is Origin.TOKEN_POSITION:
        return value[name] + token
    if column.origin is Origin.CHUNK:
        found = value[name]
        return (
            rounded(found, column.decimals)
            if column.decimals is not None and found is not None
            else found
        )
    if column.origin in (Origin.LAYER, Origin.LAYER_VECTOR):
        cell = matrix(TELEMETRY if name in _TELEMETRY else WEIGHTS, name, value)[layer]
    else:
        group = value["token_rows"]
        if group[name] is None:
            return None
        whole = matrix(nested(TELEMETRY, "token_rows"), name, group, value)
        cell = whole[token] if column.origin is Origin.TOKEN else whole[token, layer]
    if cell.ndim:
        return [
            item if isinstance(item, int) else rounded(item, column.decimals)
            for item in cell.tolist()
        ]
    if cell.dtype.kind in "iu" or column.type == "UInt32":
        return int(cell)
    return rounded(float(cell), column.decimals)


_TELEMETRY = {field.name for field in TELEMETRY}


def as_lists(data: ColumnData) -> list[Any]:
    values: list[Any] = data.values.tolist()
    if data.values.dtype.kind == "M":
        values = data.values.view(np.int64).tolist()
    if data.offsets is not None:
        bounds = data.offsets.tolist()
        clean = [None if isinstance(v, float) and math.isnan(v) else v for v in values]
        return [clean[a:b] for a, b in pairwise(bounds)]
    if data.nulls is not None:
        return [None if null else v for v, null in zip(values, data.nulls.tolist(), strict=True)]
    return values


def compare(record: Record, records: list[dict[str, Any]]) -> None:
    n = len(records)
    at = Coordinates("topic", "id", 3, np.arange(n) + 100, np.arange(n) + 1_790_000_000_000)
    for table in tables_of(record):
        fast = columns(table, records, at)
        expected = slow_rows(table, records, at)
        assert list(fast) == [column.name for column in table.filled]
        for name, data in fast.items():
            assert as_lists(data) == [row[name] for row in expected], (table.name, name)


@EXAMPLES
@given(st.lists(values(TELEMETRY), max_size=4))
def test_telemetry(records: list[dict[str, Any]]) -> None:
    compare(TELEMETRY, records)


@EXAMPLES
@given(st.lists(values(WEIGHTS), max_size=4))
def test_weights(records: list[dict[str, Any]]) -> None:
    compare(WEIGHTS, records)


@EXAMPLES
@given(st.lists(values(DEAD_LETTER), max_size=4))
def test_dead_letters(records: list[dict[str, Any]]) -> None:
    compare(DEAD_LETTER, records)
