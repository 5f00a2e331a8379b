"""Fields of decoded records gathered into columns: bytes end to end, few distinct texts, lists, floats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import types

from routekeel.operators.compilation import array_in, array_out
from routekeel.streams.wire.decode import Columns
from routekeel.streams.wire.primitives import WIRE, copy, read_long, same

Array = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]

DISTINCT_MAX = 64
"""More distinct texts than these are no label: a dictionary of them would be searched too long."""


def lengths_of(columns: Columns, field: int) -> I64:
    """int64[n]: how many bytes (or items) a field has; 0 for null."""
    return np.maximum(columns.values[:, field], 0)


def joined(columns: Columns, field: int) -> npt.NDArray[np.uint8]:
    """uint8: the contents of a string or bytes field, all records end to end."""
    out = np.empty(int(lengths_of(columns, field).sum()), np.uint8)
    join(columns.buffer, columns.starts, columns.values, field, out)
    return out


def joined_floats(columns: Columns, fields: Sequence[int]) -> npt.NDArray[np.float32]:
    """float32[len(fields), total]: matrices of equal lengths end to end, in one pass over the records.

    A record's fields lie side by side: field by field the records would come out of memory each time.
    """
    total = int(lengths_of(columns, fields[0]).sum()) // 4
    out = np.empty((len(fields), total), np.float32)
    chosen = np.array(fields, np.int64)
    join_floats(columns.buffer, columns.starts, columns.values, chosen, out.view(np.uint32))
    return out


def distinct(columns: Columns, field: int) -> tuple[npt.NDArray[np.int32], list[bytes]] | None:
    """(int32[n] places, texts) of a string field, by first appearance; null counts as empty.

    None where there are more than DISTINCT_MAX.
    """
    places = np.empty(len(columns.good), np.int32)
    first = np.empty(DISTINCT_MAX, np.int32)
    count = find_distinct(columns.buffer, columns.starts, columns.values, field, places, first)
    if count < 0:
        return None
    ends = columns.starts[first[:count], field + 1].tolist()
    sizes = lengths_of(columns, field)[first[:count]].tolist()
    buffer = columns.buffer
    return places, [
        buffer[end - size : end].tobytes() for end, size in zip(ends, sizes, strict=True)
    ]


def flat_ints(columns: Columns, field: int) -> npt.NDArray[np.int32]:
    """int32: the items of an array field, all records end to end."""
    out = np.empty(int(lengths_of(columns, field).sum()), np.int32)
    read_lists(columns.buffer, columns.starts, columns.values, field, out)
    return out


def round_in_place(values: npt.NDArray[np.float32], decimals: int | None) -> int:
    """Rounds to so many decimals as `schemas.rows.rounded` does; how many are NaN."""
    scale = 0.0 if decimals is None else 10.0**decimals
    return int(round_all(values, scale))


def _join(source_digest: int) -> Any:
    def join(buf: Any, starts: Any, values: Any, field: Any, out: Any) -> Any:
        at = np.int64(source_digest & 0)
        for i in range(starts.shape[0]):
            size = values[i, field]
            if size > 0:
                end = np.int64(starts[i, field + 1])
                at = copy(buf, end - size, end, out, at)

    return join


def _join_floats(source_digest: int) -> Any:
    def join_floats(buf: Any, starts: Any, values: Any, fields: Any, out: Any) -> Any:
        at = np.int64(source_digest & 0)
        for i in range(starts.shape[0]):
            size = max(values[i, fields[0]], np.int64(0))
            words = size >> np.int64(2)
            for place in range(fields.shape[0]):
                start = np.int64(starts[i, fields[place] + 1]) - size
                for word in range(words):
                    byte = start + 4 * word
                    out[place, at + word] = (
                        np.uint32(buf[byte])
                        | np.uint32(buf[byte + 1]) << np.uint32(8)
                        | np.uint32(buf[byte + 2]) << np.uint32(16)
                        | np.uint32(buf[byte + 3]) << np.uint32(24)
                    )
            at += words

    return join_floats


def _find_distinct(source_digest: int) -> Any:
    def find_distinct(
        buf: Any, starts: Any, values: Any, field: Any, places: Any, first: Any
    ) -> Any:
        count = np.int64(source_digest & 0)
        last = np.int64(0)
        for i in range(starts.shape[0]):
            size = max(values[i, field], np.int64(0))
            start = np.int64(starts[i, field + 1]) - size
            found = np.int64(-1)
            for step in range(count):
                # The one before comes first: labels change rarely from record to record.
                known = last if step == 0 else step - 1 if step <= last else step
                j = first[known]
                known_size = max(values[j, field], np.int64(0))
                if known_size == size and same(
                    buf, np.int64(starts[j, field + 1]) - size, buf, start, size
                ):
                    found = np.int64(known)
                    break
            if found < 0:
                if count == first.shape[0]:
                    return np.int64(-1)
                first[count] = i
                found = count
                count += 1
            places[i] = found
            last = found
        return count

    return find_distinct


def _read_lists(source_digest: int) -> Any:
    def read_lists(buf: Any, starts: Any, values: Any, field: Any, out: Any) -> Any:
        n = np.int64(source_digest & 0)
        for i in range(starts.shape[0]):
            count = values[i, field]
            end = np.int64(starts[i, field + 1])
            if count > 0:
                _, at = read_long(buf, np.int64(starts[i, field]), end)
                for _ in range(count):
                    value, at = read_long(buf, at, end)
                    out[n] = value
                    n += 1

    return read_lists


def _round_all(source_digest: int) -> Any:
    def round_all(values: Any, scale: Any) -> Any:
        nans = np.int64(source_digest & 0)
        if scale != 0.0:
            for i in range(values.shape[0]):
                # In float64 and by a division; − 0 becomes 0.
                values[i] = np.float32(np.rint(np.float64(values[i]) * scale) / scale + 0.0)
        for i in range(values.shape[0]):
            nans += np.int64(values[i] != values[i])
        return nans

    return round_all


_COLUMNS = (
    array_in(types.uint8, 1),  # buf
    array_in(types.int32, 2),  # starts
    array_in(types.int64, 2),  # values
    types.int64,  # field
)
join = WIRE.entry(types.void(*_COLUMNS, array_out(types.uint8, 1)), _join)
join_floats = WIRE.entry(
    types.void(*_COLUMNS[:3], array_in(types.int64, 1), array_out(types.uint32, 2)), _join_floats
)
find_distinct = WIRE.entry(
    types.int64(*_COLUMNS, array_out(types.int32, 1), array_out(types.int32, 1)), _find_distinct
)
read_lists = WIRE.entry(types.void(*_COLUMNS, array_out(types.int32, 1)), _read_lists)
round_all = WIRE.entry(types.int64(array_out(types.float32, 1), types.float64), _round_all)
