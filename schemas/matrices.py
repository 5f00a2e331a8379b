"""Matrix fields of a decoded record as NumPy arrays, their length checked against their axes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from routekeel.schemas.errors import BadShape
from routekeel.schemas.fields import Field, Record
from routekeel.schemas.kinds import Matrix, Nested

Array = npt.NDArray[Any]


def matrix(
    holder: Record | Nested,
    name: str,
    value: Mapping[str, Any],
    outer: Mapping[str, Any] | None = None,
) -> Array:
    """The matrix field `name` of a decoded value: a read-only view, shaped by its axes.

    The dtype is the declared one, little-endian; NaN stays NaN. `outer` is the enclosing record's
    value where `holder` is a nested record, which may take axes from it. Raises BadShape where the
    length is not what the axes imply or the field is null, KeyError where there is no such field.

    >>> from routekeel.schemas.records import WEIGHTS
    >>> value = {"layers": [0, 4], "beta": np.array([1.0, 0.5], "<f4").tobytes()}
    >>> matrix(WEIGHTS, "beta", value)
    array([1. , 0.5], dtype=float32)
    """
    declared = _declared(holder, name)
    data = value[name]
    if data is None:
        raise BadShape(f"{holder.name}.{name} is null")
    shape = shape_of(declared.dims, value, outer)
    expected = prod(shape) * declared.itemsize
    if len(data) != expected or min(shape) < 0:
        axes = ", ".join(f"{dim} = {size}" for dim, size in zip(declared.dims, shape, strict=True))
        raise BadShape(f"{holder.name}.{name} has {len(data)} bytes; {axes} take {expected}")
    return np.frombuffer(data, declared.dtype).reshape(shape)


def shape_of(
    dims: tuple[str, ...], value: Mapping[str, Any], outer: Mapping[str, Any] | None = None
) -> tuple[int, ...]:
    """The lengths of the named axes: of a list its length, of a number the number.

    >>> shape_of(("steps", "layers"), {"steps": 8}, {"layers": [3, 7]})
    (8, 2)
    """
    out = []
    for dim in dims:
        size = value[dim] if dim in value or outer is None else outer[dim]
        out.append(size if isinstance(size, int) else len(size))
    return tuple(out)


@cache
def _declared(holder: Record | Nested, name: str) -> Matrix:
    for field in holder.fields:
        if field.name == name:
            if isinstance(field.kind, Matrix):
                return field.kind
            raise KeyError(f"{holder.name}.{name} is no matrix")
    raise KeyError(f"{holder.name} has no field {name!r}")


def nested(record: Record, name: str) -> Nested:
    """The nested record that a field holds, e.g. Telemetry's `token_rows`."""
    field: Field = record.field(name)
    if not isinstance(field.kind, Nested):
        raise KeyError(f"{record.name}.{name} is no nested record")
    return field.kind
