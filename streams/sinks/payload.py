"""Rows as one Arrow record batch: the columns of schemas/rows.py, wrapped for ClickHouse.

The bytes are made once and kept until the insert's outcome is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pyarrow as pa

from routekeel.operators.step import compiled_kernel_exists
from routekeel.schemas.columns import Column
from routekeel.schemas.rows import ColumnData, Coordinates, columns
from routekeel.schemas.tables import Table
from routekeel.streams.sinks.actions import Payload
from routekeel.streams.sinks.block import Block
from routekeel.streams.topology.records import Source

FORMAT: Final = "ArrowStream"
"""ClickHouse's name of the format."""


def build_payload(table: Table, block: Block, source: Source) -> Payload:
    """The rows of usable records as an Arrow stream. Raises BadRow with a record's index in the block."""
    return encode(bulk_batch(table, block, source) or plain_batch(table, block, source))


def bulk_batch(table: Table, block: Block, source: Source) -> Any:
    """The pyarrow.RecordBatch from the compiled decoder's columns; None where there are none."""
    if block.columns is None:
        return None
    # Loaded here: without numba there are no such columns, and this cannot be imported.
    from routekeel.streams.sinks.bulk_columns import NotPlain, bulk_record_batch

    try:
        return bulk_record_batch(table, block, source)
    except NotPlain:
        return None


def plain_batch(table: Table, block: Block, source: Source) -> Any:
    """The pyarrow.RecordBatch by way of the decoded fields. Raises BadRow."""
    at = Coordinates(source.topic, source.topic_id, source.partition, block.offsets, block.times_ms)
    return record_batch(table, columns(table, block.values(), at))


def warm_up() -> None:
    """Have pyarrow import what its first conversion of strings imports (pandas: one to three seconds), and
    compiled code loaded, before rows wait for it.
    """
    if compiled_kernel_exists():
        import routekeel.streams.sinks.bulk_columns  # noqa: F401
    pa.array(np.array(["", None], object), pa.string())


def encode(batch: Any) -> Payload:
    """An Arrow stream of one record batch."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return Payload(sink.getvalue().to_pybytes(), batch.num_rows)


def record_batch(table: Table, data: Mapping[str, ColumnData]) -> Any:
    """The columns as a pyarrow.RecordBatch, in the table's order."""
    filled = table.filled
    arrays = [_array(column, data[column.name]) for column in filled]
    return pa.RecordBatch.from_arrays(arrays, names=[column.name for column in filled])


def _array(column: Column, data: ColumnData) -> Any:
    values = _values(column, data)
    if data.offsets is None:
        return values
    return pa.ListArray.from_arrays(pa.array(data.offsets), values)


def _values(column: Column, data: ColumnData) -> Any:
    values, nulls = data.values, data.nulls
    if values.dtype.kind == "M":
        unit = np.datetime_data(values.dtype)[0]
        kind = pa.timestamp(unit, tz="UTC")
        return pa.array(values.view(np.int64), mask=nulls).cast(kind)
    if values.dtype.kind != "O":
        return pa.array(values, mask=nulls)
    kind = pa.binary() if _is_binary(column) else pa.string()
    if "LowCardinality" in column.type:
        return _dictionary(values, nulls, kind)
    return pa.array(values, kind, mask=nulls)


def _dictionary(values: Any, nulls: Any, kind: Any) -> Any:
    """A column of few distinct values: a model, a topic. Often it is one in all rows."""
    places: dict[Any, int] = {}
    indices = np.fromiter(
        (places.setdefault(value, len(places)) for value in values), np.int32, len(values)
    )
    return pa.DictionaryArray.from_arrays(
        pa.array(indices, mask=nulls), pa.array(list(places), kind)
    )


def _is_binary(column: Column) -> bool:
    if column.field is None:
        return False
    kind = getattr(column.field.kind, "item", column.field.kind)
    return getattr(kind, "avro", "") == "bytes"
