"""A record's declaration as the columns that the compiled decoder walks."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from routekeel.schemas.fields import Record
from routekeel.schemas.kinds import Enum, Kind, Matrix, Nested, Scalar, Sequence

LONG, INT, FLOAT, DOUBLE, BOOLEAN, ENUM, STRING, BYTES, INTS, OTHER = range(10)
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
def program_of(record: Record) -> npt.NDArray[np.int32]:
    """int32[fields, 3]: the kind, whether it may be null, and an enum's number of symbols.

    A field of kind OTHER (a nested record, a map) is only readable where it is null.
    """
    rows = []
    for field in record.fields:
        kind, symbols = _kind(field.kind)
        rows.append((kind, int(field.nullable), symbols))
    program = np.array(rows, np.int32)
    program.setflags(write=False)
    return program


@cache
def index_of(record: Record) -> dict[str, int]:
    """Field name → column."""
    return {field.name: index for index, field in enumerate(record.fields)}


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
