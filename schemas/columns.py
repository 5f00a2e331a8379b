"""One ClickHouse column as a value, and how it follows from a record's field."""

from __future__ import annotations

from collections.abc import Mapping as MappingOf
from dataclasses import dataclass
from enum import Enum as PyEnum
from typing import Final

from routekeel.schemas.fields import Field
from routekeel.schemas.kinds import Enum, Mapping, Matrix, Nested, Scalar, Sequence

FLOAT_CODEC: Final = "ALP, ZSTD(1)"
PLAIN_CODEC: Final = "ZSTD(1)"
DELTA_CODEC: Final = "Delta, ZSTD(1)"


class Origin(PyEnum):
    """Where a column's value comes from, for one row."""

    LOG = "where the sink read the record"
    INSERT = "filled in by ClickHouse"
    CHUNK = "a field of the record, repeated in each of its rows"
    LAYER_ID = "the layer's id"
    LAYER = "the layer's element of a matrix over layers"
    LAYER_VECTOR = "the layer's row of a matrix over layers and experts"
    TOKEN_POSITION = "the record's position plus the token's place in it"
    TOKEN = "the token's element of a matrix over steps"
    TOKEN_LAYER = "the element of a matrix over steps and layers"
    TOKEN_LAYER_VECTOR = "the row of a matrix over steps, layers and experts"


@dataclass(frozen=True, slots=True)
class Column:
    """One column: where its value comes from, and what its floats are rounded to."""

    name: str
    type: str
    doc: str
    origin: Origin
    codec: str = PLAIN_CODEC
    field: Field | None = None
    decimals: int | None = None
    default: str = ""

    @property
    def nullable(self) -> bool:
        """Whether a value may be absent."""
        return "Nullable(" in self.type and not self.type.startswith("Array(")


LABEL_TYPE: Final = "LowCardinality(String)"
_INTEGERS = {"<i4": "Int32", "|u1": "UInt8", "<u2": "UInt16"}


def _doc(field: Field) -> str:
    notes = ", ".join(note for note in (field.unit, field.range) if note)
    return f"{field.doc} [{notes}]" if notes else field.doc


def _nullable(base: str) -> str:
    if base.startswith("LowCardinality("):
        return f"LowCardinality(Nullable({base.removeprefix('LowCardinality(')})"
    return f"Nullable({base})"


def scalar_column(field: Field) -> Column:
    """The column of a field that has one value per record. Raises TypeError for a matrix."""
    kind = field.kind
    codec, decimals = PLAIN_CODEC, None
    match kind:
        case Scalar():
            base, codec, decimals = kind.clickhouse, kind.codec or PLAIN_CODEC, kind.decimals
        case Enum():
            base = LABEL_TYPE
        case Sequence():
            item = "String" if kind.item.clickhouse == LABEL_TYPE else kind.item.clickhouse
            base = f"Array({_nullable(item) if kind.item_nullable else item})"
        case Mapping():
            base = "Map(String, String)"
        case Matrix() | Nested():
            raise TypeError(f"{field.name} is no scalar")
    column_type = _nullable(base) if field.nullable else base
    return Column(field.name, column_type, _doc(field), Origin.CHUNK, codec, field, decimals)


def matrix_column(
    field: Field, dims: MappingOf[tuple[str, ...], Origin], name: str | None = None
) -> Column:
    """The column of a matrix field, whose axes `dims` maps to what a row takes of it."""
    assert isinstance(field.kind, Matrix)
    kind, origin = field.kind, dims[field.kind.dims]
    vector = origin in (Origin.LAYER_VECTOR, Origin.TOKEN_LAYER_VECTOR)
    decimals, codec = kind.decimals, PLAIN_CODEC
    if kind.dtype in _INTEGERS:
        base = _INTEGERS[kind.dtype]
    elif decimals == 0 and not vector:
        base, codec = "UInt32", "T64, ZSTD(1)"
    else:
        # NaN is NULL, but inside an array it stays NaN: a Nullable per element doubles the work.
        base, codec = "Float32" if vector else "Nullable(Float32)", FLOAT_CODEC
    if vector:
        base = f"Array({base})"
    elif field.nullable:
        base = _nullable(base) if not base.startswith("Nullable") else base
    return Column(name or field.name, base, _doc(field), origin, codec, field, decimals)
