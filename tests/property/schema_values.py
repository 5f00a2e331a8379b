"""Hypothesis strategies for values of the records, matrices with the shapes that they claim."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st

from routekeel.schemas.fields import Field, Record
from routekeel.schemas.kinds import Enum, Kind, Matrix, Nested, Scalar, Sequence
from routekeel.schemas.matrices import shape_of

INTS = st.integers(-(2**31), 2**31 - 1)
LONGS = st.integers(-(2**63), 2**63 - 1)
SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "string": st.text(max_size=20),
    "bytes": st.binary(max_size=20),
    "boolean": st.booleans(),
    "int": INTS,
    "long": LONGS,
    "float": st.floats(width=32, allow_nan=False),
    "double": st.floats(allow_nan=False),
}


def _single(kind: Kind) -> st.SearchStrategy[Any]:
    match kind:
        case Enum():
            return st.sampled_from(kind.symbols)
        case Sequence():
            item = _single(kind.item)
            return st.lists(st.none() | item if kind.item_nullable else item, max_size=4)
        case Scalar():
            return SCALARS[kind.avro]
    return st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3)


@st.composite
def values(
    draw: st.DrawFn, holder: Record | Nested, outer: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A value of a record: axes of 0 to 3, nullable fields sometimes null."""
    out: dict[str, Any] = {}
    fields: Iterable[Field] = holder.fields
    seed = draw(st.integers(0, 2**32 - 1))
    for field in fields:
        if field.nullable and draw(st.booleans()):
            out[field.name] = None
        elif field.name in ("steps", "experts", "directions"):
            out[field.name] = draw(st.integers(0, 3))
        elif field.name == "layers":
            out[field.name] = draw(
                st.lists(st.integers(0, 99), max_size=3, unique=True).map(sorted)
            )
        elif isinstance(field.kind, Nested):
            out[field.name] = draw(values(field.kind, out))
        elif isinstance(field.kind, Matrix):
            out[field.name] = _matrix(field.kind, shape_of(field.kind.dims, out, outer), seed)
        else:
            out[field.name] = draw(_single(field.kind))
    return out


def _matrix(kind: Matrix, shape: tuple[int, ...], seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    dtype = np.dtype(kind.dtype)
    numbers = rng.normal(size=shape) * 3
    if kind.decimals == 0 or dtype.kind in "iu":
        return np.floor(np.abs(numbers)).astype(dtype).tobytes()
    numbers[rng.random(shape) < 0.1] = np.nan
    return numbers.astype(dtype).tobytes()
