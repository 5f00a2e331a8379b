"""Decoded records to the columns of a ClickHouse table, a batch at a time.

Matrices are joined and viewed, never walked value by value. The result is plain NumPy; the sink
wraps it into Arrow: `offsets` is a list column's, `nulls` a validity mask turned round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Sequence as SequenceOf
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from routekeel.schemas.batch import Array, Batch, Coordinates, Ints, lengths
from routekeel.schemas.columns import Column, Origin
from routekeel.schemas.errors import BadRow
from routekeel.schemas.kinds import Sequence
from routekeel.schemas.tables import Table

__all__ = ["ColumnData", "Coordinates", "columns", "rounded"]

ROUND_BLOCK: Final = 1 << 20
COUNT_MAX: Final = 2**32 - 1


class ColumnData(NamedTuple):
    """One column of a batch of R rows.

    `values` are R values: numbers, datetime64 (µs or ms, UTC) or, as objects, str and bytes. For an
    Array column `offsets` is int32[R + 1] and row i is `values[offsets[i]:offsets[i + 1]]`. `nulls`
    is bool[R], True where the value is NULL, or None where no value is; under a null lies a filler.
    """

    values: Array
    nulls: npt.NDArray[np.bool_] | None = None
    offsets: npt.NDArray[np.int32] | None = None


def columns(
    table: Table, records: SequenceOf[Mapping[str, Any]], coordinates: Coordinates
) -> dict[str, ColumnData]:
    """The columns of a table for decoded records of its kind, in the table's order.

    Rows are in the order of the records, within one by token and then by layer. Floats are rounded
    to the column's decimals (half to even, −0 becomes 0) and NaN is NULL; in an Array column NaN
    stays NaN. No records, or none with token rows, give columns of length 0. Raises BadRow for a
    matrix of the wrong length, or for a count that is not in 0…2³² − 1.

    >>> from routekeel.schemas.tables import SNAPSHOTS_TABLE
    >>> at = Coordinates("routekeel.weights", "id", 3, np.array([7]), np.array([1_700_000_000_000]))
    >>> value = {"source_topic": "t", "source_topic_id": "i", "source_partition": 3,
    ...          "source_offset": 40, "session_id": "s", "model": "m", "model_revision": "",
    ...          "event_time_us": 0, "position": 9, "state": b"..."}
    >>> data = columns(SNAPSHOTS_TABLE, [value], at)
    >>> data["log_offset"].values, data["event_time_us"].values.dtype
    (array([7]), dtype('<M8[us]'))
    """
    if not len(records) == len(coordinates.offsets) == len(coordinates.times_ms):
        raise ValueError("records, offsets and times differ in number")
    batch = Batch(table, records, coordinates)
    return {column.name: _FILL[column.origin](batch, column) for column in table.filled}


def rounded(values: Array, decimals: int | None) -> npt.NDArray[np.float32]:
    """float32 rounded to so many decimals, half to even, computed in float64; −0 becomes 0.

    >>> rounded(np.array([0.12345, -0.00001, np.nan], "<f4"), 4).tolist()
    [0.12349999696016312, 0.0, nan]
    """
    if decimals is None:
        return values.astype(np.float32)
    out = np.empty(len(values), np.float32)
    scale = 10.0**decimals
    for at in range(0, len(values), ROUND_BLOCK):
        block = values[at : at + ROUND_BLOCK].astype(np.float64)
        block *= scale
        np.rint(block, out=block)
        block /= scale
        block += 0.0
        out[at : at + ROUND_BLOCK] = block
    return out


def _nulls(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_] | None:
    return mask if mask.any() else None


def _log(batch: Batch, column: Column) -> ColumnData:
    at = batch.coordinates
    if column.name == "log_offset":
        return ColumnData(batch.spread(np.asarray(at.offsets, np.int64)[batch.indices]))
    if column.name == "log_time":
        times = np.asarray(at.times_ms, np.int64)[batch.indices]
        return ColumnData(batch.spread(times).view("datetime64[ms]"))
    if column.name == "log_partition":
        return ColumnData(np.full(batch.rows, at.partition, np.int32))
    value = at.topic if column.name == "log_topic" else at.topic_id
    return ColumnData(np.full(batch.rows, value, object))


_NUMBERS: Final[dict[str, str]] = {
    "Bool": "?",
    "Int32": "<i4",
    "Int64": "<i8",
    "Float32": "<f4",
    "Float64": "<f8",
    "DateTime64(6, 'UTC')": "<i8",
}


def _chunk(batch: Batch, column: Column) -> ColumnData:
    assert column.field is not None
    values = batch.field(column)
    if isinstance(column.field.kind, Sequence):
        return _lists(batch, values)
    base = column.type.removeprefix("Nullable(")
    dtype = _NUMBERS.get(base.removesuffix(")") if base != column.type else base)
    absent = None
    if column.nullable and None in values:
        absent = np.fromiter((value is None for value in values), np.bool_, len(values))
        filler: Any = "" if dtype is None else 0
        values = tuple(filler if value is None else value for value in values)
    if dtype is None:
        array = np.empty(len(values), object)
        array[:] = values
    else:
        array = _array(batch, column, values, dtype)
    if array.dtype.kind == "f":
        if column.decimals is not None:
            array = rounded(array, column.decimals)
        if column.nullable:
            nan = np.isnan(array)
            absent = nan if absent is None else absent | nan
    elif column.type == "DateTime64(6, 'UTC')":
        array = array.view("datetime64[us]")
    nulls = None if absent is None else _nulls(batch.spread(absent))
    return ColumnData(batch.spread(array), nulls)


def _array(batch: Batch, column: Column, values: tuple[Any, ...], dtype: str) -> Array:
    try:
        return np.array(values, dtype)
    except (TypeError, ValueError, OverflowError) as error:
        for index, value in enumerate(values):
            try:
                np.array(value, dtype)
            except (TypeError, ValueError, OverflowError):
                reason = f"{column.name} is {value!r}: {error}"
                raise BadRow(int(batch.indices[index]), reason) from error
        raise


def _lists(batch: Batch, values: tuple[Any, ...]) -> ColumnData:
    # Only records of one row each have list columns (a dead letter's headers).
    assert batch.rows == len(values)
    flat = [item for value in values for item in value]
    array = np.empty(len(flat), object)
    array[:] = flat
    return ColumnData(array, None, _offsets(lengths(values)))


def _offsets(lengths: Ints) -> npt.NDArray[np.int32]:
    out = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=out[1:])
    return out


def _numbers(batch: Batch, column: Column, values: Array) -> ColumnData:
    if column.type == "UInt32":
        whole = (values >= 0) & (values <= COUNT_MAX)
        if not whole.all():
            row = int(np.argmin(whole))
            reason = f"{column.name} is {values[row]}, not a count"
            raise BadRow(batch.record_of_row(row), reason)
        return ColumnData(np.rint(values.astype(np.float64)).astype(np.uint32))
    if values.dtype.kind == "f":
        values = rounded(values, column.decimals)
        return ColumnData(values, _nulls(np.isnan(values)))
    return ColumnData(values)


def _layer_id(batch: Batch, column: Column) -> ColumnData:
    return ColumnData(batch.layer_ids())


def _layer(batch: Batch, column: Column) -> ColumnData:
    return _numbers(batch, column, batch.joined(column, batch.row_counts)[0])


def _vector(batch: Batch, column: Column) -> ColumnData:
    values, _ = batch.joined(column, batch.row_counts * batch.experts)
    if values.dtype.kind == "f":
        values = rounded(values, column.decimals)
    return ColumnData(values, None, _offsets(np.repeat(batch.experts, batch.row_counts)))


def _token(batch: Batch, column: Column) -> ColumnData:
    values, absent = batch.joined(column, batch.step_counts)
    data = _numbers(batch, column, values)
    nulls = None if data.nulls is None else batch.spread_tokens(data.nulls)
    if absent is not None:
        nulls = batch.spread(absent) if nulls is None else nulls | batch.spread(absent)
    return ColumnData(batch.spread_tokens(data.values), nulls)


def _token_position(batch: Batch, column: Column) -> ColumnData:
    first = np.array(batch.field(column), np.int64)
    return ColumnData(batch.spread(first) + batch.token_indices())


_FILL: Final[dict[Origin, Callable[[Batch, Column], ColumnData]]] = {
    Origin.LOG: _log,
    Origin.CHUNK: _chunk,
    Origin.LAYER_ID: _layer_id,
    Origin.LAYER: _layer,
    Origin.LAYER_VECTOR: _vector,
    Origin.TOKEN_POSITION: _token_position,
    Origin.TOKEN: _token,
    Origin.TOKEN_LAYER: _layer,
    Origin.TOKEN_LAYER_VECTOR: _vector,
}
