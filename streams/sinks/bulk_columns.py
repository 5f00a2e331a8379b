"""Arrow columns straight from what the compiled decoder read, without a Python object per record.

The result is what `schemas/rows.py` gives for the same records (tests/property/test_sink_bulk.py).
Where anything is out of the ordinary (a matrix of the wrong length, a count that is none, a table of
tokens) it says so, and the plain way decides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from routekeel.schemas.columns import LABEL_TYPE, Column, Origin
from routekeel.schemas.kinds import Enum, Matrix, Scalar
from routekeel.schemas.rows import COUNT_MAX, rounded
from routekeel.schemas.tables import Grain, Table
from routekeel.streams.sinks.block import Block
from routekeel.streams.topology.records import Source
from routekeel.streams.wire import rows as wire
from routekeel.streams.wire.program import index_of

Array = npt.NDArray[Any]


class NotPlain(Exception):
    """The records need the plain way."""


def bulk_record_batch(table: Table, block: Block, source: Source) -> Any:
    """The pyarrow.RecordBatch of a table, in its columns' order. Raises NotPlain."""
    if table.grain is Grain.TOKEN or block.columns is None or not block.columns.good.all():
        raise NotPlain
    if table.needs:
        kept = np.flatnonzero(block.has(table.needs))
        block = block if len(kept) == len(block) else block.part(kept)
    rows = _Rows(table, block, source)
    filled = table.filled
    arrays = [_FILL[column.origin](rows, column) for column in filled]
    return pa.RecordBatch.from_arrays(arrays, names=[column.name for column in filled])


class _Rows:
    """What every column needs: the decoded columns, and how many rows a record has."""

    def __init__(self, table: Table, block: Block, source: Source) -> None:
        self.block, self.source = block, source
        assert block.columns is not None
        self.columns = block.columns.columns
        self.at = index_of(table.record, nested=True)
        n = len(block)
        self.layered = table.grain is Grain.LAYER
        values = self.columns.values
        self.counts = values[:, self.at["layers"]] if self.layered else np.ones(n, np.int64)
        self.experts = values[:, self.at["experts"]] if self.layered else np.ones(n, np.int64)
        self.total = int(self.counts.sum())
        self.of_row = np.repeat(np.arange(n, dtype=np.int32), self.counts)
        self._layers = self._layer_matrices(table)

    def number(self, name: str) -> Array:
        """int64[n]: the column's values, lengths, or NULL."""
        values: Array = self.columns.values[:, self.at[name]]
        return values

    def absent(self, column: Column) -> Array | None:
        """bool[n]: whether the record has null there; None where none has."""
        assert column.field is not None
        if not column.field.nullable:
            return None
        field = self.at[column.field.name]
        starts = self.columns.starts
        absent: Array = starts[:, field + 1] - starts[:, field] == 1  # the branch's byte alone
        return absent if absent.any() else None

    def spread(self, values: Array) -> Array:
        """One value per record, for each of its rows."""
        return values[self.of_row] if self.layered else values

    def _layer_matrices(self, table: Table) -> dict[str, Array]:
        """float32[total] by name: every matrix of one float per layer. Raises NotPlain as `matrix` does."""
        names = [
            column.field.name
            for column in table.columns
            if column.field is not None
            and column.origin is Origin.LAYER
            and isinstance(column.field.kind, Matrix)
            and column.field.kind.dtype == "<f4"
        ]
        if not names:
            return {}
        fields = [self.at[name] for name in names]
        if not (self.columns.values[:, fields] == (4 * self.counts)[:, None]).all():
            raise NotPlain
        return dict(zip(names, wire.joined_floats(self.columns, fields), strict=True))

    def layer(self, name: str, dtype: str) -> Array:
        """A matrix of one value per layer, all records end to end; may be written to."""
        found = self._layers.get(name)
        return self.matrix(name, dtype, self.counts) if found is None else found

    def matrix(self, name: str, dtype: str, sizes: Array) -> Array:
        """A matrix field of all records end to end. Raises NotPlain for a wrong length."""
        item = np.dtype(dtype).itemsize
        if not np.array_equal(self.number(name), sizes * item):
            raise NotPlain
        return wire.joined(self.columns, self.at[name]).view(dtype)


def _log(rows: _Rows, column: Column) -> Any:
    source = rows.source
    match column.name:
        case "log_offset":
            return pa.array(rows.spread(rows.block.offsets))
        case "log_time":
            return pa.array(rows.spread(rows.block.times_ms)).cast(pa.timestamp("ms", tz="UTC"))
        case "log_partition":
            return pa.array(np.full(rows.total, source.partition, np.int32))
    value = source.topic if column.name == "log_topic" else source.topic_id
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows.total, np.int32)), [value])


def _chunk(rows: _Rows, column: Column) -> Any:
    assert column.field is not None
    kind, absent = column.field.kind, rows.absent(column)
    if isinstance(kind, Enum):
        return _label(rows, rows.number(column.field.name), list(kind.symbols), absent)
    if not isinstance(kind, Scalar):
        raise NotPlain
    if kind.avro in ("string", "bytes"):
        return _text(rows, column, kind, absent)
    if kind.avro in ("float", "double"):
        return _float(rows, column, kind, absent)
    values, mask = rows.number(column.field.name), None
    if absent is not None:
        values, mask = np.where(absent, 0, values), rows.spread(absent)
    values = rows.spread(values)
    if kind.logical:
        return pa.array(values, mask=mask).cast(pa.timestamp("us", tz="UTC"))
    return pa.array(values.astype(_INTEGERS[kind.avro]), mask=mask)


_INTEGERS: Final = {"long": np.int64, "int": np.int32, "boolean": np.bool_}


def _text(rows: _Rows, column: Column, kind: Scalar, absent: Array | None) -> Any:
    field = rows.at[column.name]
    mask = None if absent is None else rows.spread(absent)
    if kind.clickhouse == LABEL_TYPE:
        found = wire.distinct(rows.columns, field)
        if found is not None:
            places, texts = found
            return _label(rows, places, [text.decode("ascii") for text in texts], absent)
    sizes = wire.lengths_of(rows.columns, field)
    ends = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=ends[1:])
    if ends[-1] >= 2**31:
        raise NotPlain
    offsets = pa.py_buffer(ends.astype(np.int32))
    kind_of = pa.string() if kind.avro == "string" else pa.binary()
    data = pa.py_buffer(wire.joined(rows.columns, field))
    texts = pa.Array.from_buffers(kind_of, len(sizes), [None, offsets, data])
    if kind.clickhouse == LABEL_TYPE:  # more labels than a small dictionary holds
        return pa.DictionaryArray.from_arrays(pa.array(rows.of_row, mask=mask), texts)
    return (
        texts.take(pa.array(rows.of_row, mask=mask)) if rows.layered or mask is not None else texts
    )


def _label(rows: _Rows, places: Array, texts: list[str], absent: Array | None) -> Any:
    """A dictionary of the texts that occur, in the order of their places (one per record)."""
    if absent is not None:
        places = np.where(absent, 0, places)
    used = np.zeros(len(texts), np.bool_)
    used[places if absent is None else places[~absent]] = True
    renamed: Array = np.asarray(np.cumsum(used) - used, np.int32)
    mask = None if absent is None else rows.spread(absent)
    kept = [text for text, one in zip(texts, used.tolist(), strict=True) if one]
    return pa.DictionaryArray.from_arrays(
        pa.array(rows.spread(renamed[places]), mask=mask), pa.array(kept, pa.string())
    )


def _float(rows: _Rows, column: Column, kind: Scalar, absent: Array | None) -> Any:
    dtype = np.dtype("<f4" if kind.avro == "float" else "<f8")
    ends = rows.columns.starts[:, rows.at[column.name] + 1].astype(np.int64)
    if absent is not None:
        ends = np.where(absent, dtype.itemsize, ends)  # any bytes: what is null has none
    places = (ends - dtype.itemsize)[:, None] + np.arange(dtype.itemsize)
    values = rows.columns.buffer[places].view(dtype)[:, 0]
    if column.decimals is not None:
        values = rounded(values, column.decimals)
    if column.nullable:
        nan = np.isnan(values)
        absent = nan if absent is None else absent | nan
    mask = None if absent is None or not absent.any() else rows.spread(absent)
    return pa.array(rows.spread(values), mask=mask)


def _layer_id(rows: _Rows, column: Column) -> Any:
    return pa.array(wire.flat_ints(rows.columns, rows.at["layers"]))


def _layer(rows: _Rows, column: Column) -> Any:
    assert column.field is not None
    kind = column.field.kind
    assert isinstance(kind, Matrix)
    if column.field.nullable:
        raise NotPlain
    values = rows.layer(column.field.name, kind.dtype)
    if column.type == "UInt32":
        if not ((values >= 0) & (values <= COUNT_MAX)).all():
            raise NotPlain
        return pa.array(np.rint(values.astype(np.float64)).astype(np.uint32))
    if kind.dtype != "<f4":
        return pa.array(values)
    nans = wire.round_in_place(values, column.decimals)
    return pa.array(values, mask=np.isnan(values) if nans else None)


def _vector(rows: _Rows, column: Column) -> Any:
    assert column.field is not None
    kind = column.field.kind
    assert isinstance(kind, Matrix)
    sizes, name = rows.counts * rows.experts, column.field.name
    half = f"{name}_half"
    if half in rows.at and len(rows.block) and rows.number(half)[0] > 0:
        if rows.number(name).any():
            raise NotPlain
        values = rows.matrix(half, "<f2", sizes).astype("<f4")
    elif half in rows.at and (rows.number(half) > 0).any():
        raise NotPlain
    else:
        values = rows.matrix(name, kind.dtype, sizes)
    if values.dtype.kind == "f":
        wire.round_in_place(values, column.decimals)
    offsets = np.zeros(rows.total + 1, np.int32)
    np.cumsum(rows.spread(rows.experts), out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))


_FILL: Final[dict[Origin, Callable[[_Rows, Column], Any]]] = {
    Origin.LOG: _log,
    Origin.CHUNK: _chunk,
    Origin.LAYER_ID: _layer_id,
    Origin.LAYER: _layer,
    Origin.LAYER_VECTOR: _vector,
}
