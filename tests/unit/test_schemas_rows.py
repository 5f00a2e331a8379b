"""Rows: what does not fit is told by its place in the batch; rounding; tables cover the records."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from routekeel.schemas.columns import Origin
from routekeel.schemas.errors import BadRow
from routekeel.schemas.fields import Record
from routekeel.schemas.kinds import Matrix
from routekeel.schemas.matrices import nested
from routekeel.schemas.records import DEAD_LETTER, TELEMETRY, WEIGHTS
from routekeel.schemas.rows import Coordinates, columns, rounded
from routekeel.schemas.tables import (
    TABLES,
    TELEMETRY_TABLE,
    TOKENS_TABLE,
    WEIGHTS_TABLE,
    Table,
    tables_of,
)
from tests.golden.examples import example


def at(n: int) -> Coordinates:
    return Coordinates("topic", "id", 3, np.arange(n), np.arange(n) + 1_790_000_000_000)


def f4(*values: float) -> bytes:
    return np.array(values, "<f4").tobytes()


@pytest.mark.parametrize(
    ("table", "change", "message"),
    [
        (TELEMETRY_TABLE, {"beta": f4(1, 2, 3)}, "beta has 12 bytes, not 8"),
        (TELEMETRY_TABLE, {"tokens": f4(1, np.nan)}, "tokens is nan, not a count"),
        (TELEMETRY_TABLE, {"held": f4(1, -1)}, "not a count"),
        (TELEMETRY_TABLE, {"steps": 2**40}, "steps"),
        (WEIGHTS_TABLE, {"w_hat": b""}, "w_hat has 0 bytes"),
        (WEIGHTS_TABLE, {"experts": -4}, "w_hat"),
    ],
)
def test_a_record_that_does_not_fit_is_named(
    table: Table, change: dict[str, Any], message: str
) -> None:
    good = example(table.record)
    with pytest.raises(BadRow, match=message) as raised:
        columns(table, [good, good, good | change, good], at(4))
    assert raised.value.index == 2


def test_a_record_with_bad_token_rows_is_named_among_those_without() -> None:
    good, none = example(TELEMETRY), example(TELEMETRY, sparse=True)
    for change in ({"steps": -1}, {"steps": 4}, {"w_hat": b""}):
        bad = good | {"token_rows": good["token_rows"] | change}
        with pytest.raises(BadRow) as raised:
            columns(TOKENS_TABLE, [none, good, none, bad], at(4))
        assert raised.value.index == 3


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_no_records_are_no_rows(table: Table) -> None:
    data = columns(table, [], at(0))
    assert list(data) == [column.name for column in table.filled]
    assert all(len(column.values) == 0 for column in data.values())


def test_rounding_is_half_to_even_in_float64_without_negative_zero() -> None:
    values = np.array([0.5, 1.5, -0.2, np.inf, -np.inf, 3e38, 0.12345678], "<f4")
    assert rounded(values, 0).tolist()[:5] == [0.0, 2.0, 0.0, np.inf, -np.inf]
    assert not np.signbit(rounded(values, 0)[2])
    assert np.isfinite(rounded(values, 6)[5])
    assert rounded(values, 4)[6] == np.float32(0.1235)
    assert rounded(np.array([0.1], "<f2"), 4)[0] == np.float32(0.1)
    once = rounded(values, 4)
    assert np.array_equal(rounded(once, 4), once)


@pytest.mark.parametrize("record", [TELEMETRY, WEIGHTS, DEAD_LETTER], ids=lambda r: r.name)
def test_every_stored_field_has_exactly_one_column_in_the_last_table(record: Record) -> None:
    table = tables_of(record)[-1]
    names = [c.field.name for c in table.columns if c.field is not None]
    stored = [field.name for field in record if field.stored and field.name != "layers"]
    assert sorted(names) == sorted(stored)


def test_token_rows_have_a_column_each() -> None:
    fields = [f for f in nested(TELEMETRY, "token_rows").fields if isinstance(f.kind, Matrix)]
    found = [c.field for c in TOKENS_TABLE.columns if c.origin.name.startswith("TOKEN")]
    assert [field for field in found if field in fields] == fields


def test_column_names_are_unique_and_keys_are_columns() -> None:
    for table in TABLES:
        names = [column.name for column in table.columns]
        assert len(set(names)) == len(names)
        for part in table.order_by:
            assert part.removeprefix("toStartOfHour(").rstrip(")") in names
        assert table.columns[-1].origin is Origin.INSERT


def test_the_batch_and_its_coordinates_agree_in_number() -> None:
    with pytest.raises(ValueError, match="differ in number"):
        columns(WEIGHTS_TABLE, [example(WEIGHTS)], at(2))


@pytest.mark.slow
def test_ten_thousand_telemetry_records_become_columns_quickly() -> None:
    records = [dict(example(TELEMETRY, sparse=True)) for _ in range(2000)] * 5
    best = min(_seconds(records) for _ in range(3))
    assert best < 1.0, f"{best:.2f} s; of CPU, 0.15 s measured"


def _seconds(records: list[dict[str, Any]]) -> float:
    start = time.process_time()
    columns(TELEMETRY_TABLE, records, at(len(records)))
    return time.process_time() - start
