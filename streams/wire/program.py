"""A record's declaration as the columns that the compiled decoder walks."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import numpy.typing as npt

from routekeel.schemas.fields import Field, Record
from routekeel.schemas.kinds import Enum, Kind, Matrix, Nested, Scalar, Sequence

LONG, INT, FLOAT, DOUBLE, BOOLEAN, ENUM, STRING, BYTES, INTS, OTHER, GROUP = range(11)
_SCALARS = {
    "long": LONG,
    "int": INT,
    "float": FLOAT,
    "double": DOUBLE,
    "boolean": BOOLEAN,
    "string": STRING,
    "bytes": BYTES,
}


@cache
def program_of(record: Record, *, nested: bool = False) -> npt.NDArray[np.int32]:
    """int32[columns, 3]: the kind, whether it may be null, and an enum's number of symbols.

    A field of kind OTHER (a nested record, a map) is only readable where it is null. With `nested` an
    optional nested record is a GROUP, with the number of its fields; they follow as columns.
    """
    rows = []
    for _, field in _columns(record, nested):
        kind, size = _kind(field.kind)
        if nested and isinstance(field.kind, Nested) and field.nullable:
            kind, size = GROUP, len(field.kind.fields)
        rows.append((kind, int(field.nullable), size))
    program = np.array(rows, np.int32)
    program.setflags(write=False)
    return program


@cache
def index_of(record: Record, *, nested: bool = False) -> dict[str, int]:
    """Field name → column; with `nested` also `group.field`."""
    return {name: index for index, (name, _) in enumerate(_columns(record, nested))}


def _columns(record: Record, nested: bool) -> Iterator[tuple[str, Field]]:
    for field in record.fields:
        yield field.name, field
        if nested and isinstance(field.kind, Nested) and field.nullable:
            yield from ((f"{field.name}.{inner.name}", inner) for inner in field.kind.fields)


def _kind(kind: Kind) -> tuple[int, int]:
    match kind:
        case Scalar():
            return _SCALARS[kind.avro], 0
        case Matrix():
            return BYTES, 0
        case Enum():
            return ENUM, len(kind.symbols)
        case Sequence(item=Scalar(avro="int"), item_nullable=False):
            return INTS, 0
        case Sequence() | Nested():
            return OTHER, 0
    return OTHER, 0
