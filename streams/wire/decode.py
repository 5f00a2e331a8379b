"""Decodes a batch of framed records in one compiled pass over the joined bytes: columns out.

Per record and field: where its encoded form begins (the next field's beginning is its end), and a
number: the value of a long, int, boolean or enum, the length of a string, of bytes or of an array,
NULL for null, 1 for a nested record that is there. Strings and matrices stay where they are. A
record that is not plainly valid is left to fastavro, which decides whether it is readable.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import types

from routekeel.operators.compilation import array_in, array_out
from routekeel.streams.wire import program as p
from routekeel.streams.wire.primitives import (
    INT_MAX,
    INT_MIN,
    WIRE,
    is_ascii,
    read_long,
)

NULL = -(2**63)
HEADER = 5
LONG, INT, FLOAT, DOUBLE, BOOLEAN = p.LONG, p.INT, p.FLOAT, p.DOUBLE, p.BOOLEAN
ENUM, STRING, BYTES, INTS, OTHER = p.ENUM, p.STRING, p.BYTES, p.INTS, p.OTHER
GROUP = p.GROUP

U8 = npt.NDArray[np.uint8]


class Columns(NamedTuple):
    """A decoded batch of n records of f fields.

    buffer: uint8, all records end to end; starts: int32[n, f + 1]; values: int64[n, f]; good: bool[n],
    whether the record was decoded (the other arrays say nothing about one that was not).
    """

    buffer: U8
    starts: npt.NDArray[np.int32]
    values: npt.NDArray[np.int64]
    good: npt.NDArray[np.bool_]

    def part(self, chosen: slice | npt.NDArray[np.int64]) -> Columns:
        """Some of the records, over the same buffer; of a slice nothing is copied."""
        return self._replace(
            starts=self.starts[chosen], values=self.values[chosen], good=self.good[chosen]
        )


def decode(values: Sequence[bytes], schema_id: int, program: npt.NDArray[np.int32]) -> Columns:
    """Decode the records that were written with our own schema, which has this id."""
    count = len(values)
    buffer = np.frombuffer(b"".join(values) or b"\0", np.uint8)
    bounds = np.zeros(count + 1, np.int64)
    np.cumsum(np.fromiter(map(len, values), np.int64, count), out=bounds[1:])
    starts = np.empty((count, len(program) + 1), np.int32)
    numbers = np.empty((count, len(program)), np.int64)
    good = np.empty(count, np.bool_)
    # Offsets are 32 bits: a batch beyond that (its size is bounded far below) is fastavro's.
    if bounds[-1] >= INT_MAX:
        good[:] = False
    else:
        run(program, schema_id, buffer, bounds, starts, numbers, good)
    return Columns(buffer, starts, numbers, good)


@WIRE.inlined
def read_ints(buf: Any, at: Any, end: Any) -> Any:
    """(how many, where it ends) of an array of ints in one block; the end is −1 where it is not."""
    count, at = read_long(buf, at, end)
    if at < 0 or count == 0:
        return count, at
    if count < 0 or count > end - at:
        return count, np.int64(-1)
    for _ in range(count):
        value, at = read_long(buf, at, end)
        if at < 0 or value > INT_MAX or value < INT_MIN:
            return count, np.int64(-1)
    if at >= end or buf[at] != 0:
        return count, np.int64(-1)
    return count, at + 1


@WIRE.inlined
def read_field(kind: Any, symbols: Any, buf: Any, at: Any, end: Any) -> Any:
    """(number, where it ends) of one value; the end is −1 where it is not plainly valid."""
    if kind in (FLOAT, DOUBLE):
        size = 4 if kind == FLOAT else 8
        return np.int64(0), np.int64(at + size if at + size <= end else -1)
    if kind == BOOLEAN:
        if at >= end or buf[at] > 1:
            return np.int64(0), np.int64(-1)
        return np.int64(buf[at]), np.int64(at + 1)
    if kind == INTS:
        return read_ints(buf, at, end)
    if kind == OTHER:
        return np.int64(0), np.int64(-1)
    value, at = read_long(buf, at, end)
    if at < 0 or kind == LONG:
        return value, at
    if kind == INT:
        return value, np.int64(at if INT_MIN <= value <= INT_MAX else -1)
    if kind == ENUM:
        return value, np.int64(at if 0 <= value < symbols else -1)
    if value < 0 or value > end - at:
        return value, np.int64(-1)
    if kind == STRING and not is_ascii(buf, at, at + value):
        return value, np.int64(-1)
    return value, at + value


@WIRE.inlined
def decode_one(
    program: Any, schema_id: Any, buf: Any, at: Any, end: Any, starts: Any, values: Any, i: Any
) -> Any:
    """One record; False where it is left to fastavro."""
    if end - at < HEADER or buf[at] != 0:
        return False
    found = (
        np.int64(buf[at + 1]) << 24
        | np.int64(buf[at + 2]) << 16
        | np.int64(buf[at + 3]) << 8
        | np.int64(buf[at + 4])
    )
    if found != schema_id:
        return False
    at += HEADER
    fields = program.shape[0]
    absent = 0  # up to this column a group that is null would have its fields
    for field in range(fields):
        starts[i, field] = at
        if field < absent:
            values[i, field] = NULL
            continue
        if program[field, 1] != 0:
            if at >= end:
                return False
            branch = buf[at]
            at += 1
            if branch == 0:
                values[i, field] = NULL
                if program[field, 0] == GROUP:
                    absent = field + 1 + program[field, 2]
                continue
            if branch != 2:
                return False
        if program[field, 0] == GROUP:
            values[i, field] = 1
            continue
        value, at = read_field(program[field, 0], program[field, 2], buf, at, end)
        if at < 0:
            return False
        values[i, field] = value
    starts[i, fields] = at
    return at == end


def _run(source_digest: int) -> Any:
    # The digest is a closure variable only because numba's cache key includes those.
    def run(
        program: Any, schema_id: Any, buf: Any, bounds: Any, starts: Any, values: Any, good: Any
    ) -> Any:
        if source_digest != 0:
            for i in range(bounds.shape[0] - 1):
                good[i] = decode_one(
                    program, schema_id, buf, bounds[i], bounds[i + 1], starts, values, i
                )

    return run


SIGNATURE = types.void(
    array_in(types.int32, 2),  # program
    types.int64,  # schema_id
    array_in(types.uint8, 1),  # buf
    array_in(types.int64, 1),  # bounds
    array_out(types.int32, 2),  # starts
    array_out(types.int64, 2),  # values
    array_out(types.boolean, 1),  # good
)
run = WIRE.entry(SIGNATURE, _run)
