"""Avro's primitives in compiled code: varints, little-endian numbers, copies, all on uint8 buffers.

What is not in canonical form (an over-long varint, a boolean of 2) is refused, not read: copying an
encoded value must give the bytes that decoding and encoding it would.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from routekeel.operators.compilation import CompiledUnit

WIRE = CompiledUnit()
"""Every function that goes into the compiled decoder, admission and encoder."""
inlined = WIRE.inlined

LOW_7, HIGH_1 = np.uint64(127), np.uint64(128)
ONE_U, SEVEN, EIGHT = np.uint64(1), np.uint64(7), np.uint64(8)
ZERO_U = np.uint64(0)
INT_MAX, INT_MIN = 2**31 - 1, -(2**31)


@inlined
def read_long(buf: Any, at: Any, end: Any) -> Any:
    """(value, where it ends) of a zig-zag varint; the end is −1 where it is none, or over-long."""
    raw = ZERO_U
    shift = ZERO_U
    while at < end:
        byte = np.uint64(buf[at])
        at += 1
        if shift == np.uint64(63) and byte > ONE_U:
            return np.int64(0), np.int64(-1)
        raw |= (byte & LOW_7) << shift
        if byte < HIGH_1:
            if byte == ZERO_U and shift > ZERO_U:
                return np.int64(0), np.int64(-1)
            return np.int64(raw >> ONE_U) ^ -np.int64(raw & ONE_U), np.int64(at)
        shift += SEVEN
    return np.int64(0), np.int64(-1)


@inlined
def write_long(buf: Any, at: Any, value: Any) -> Any:
    """Writes a zig-zag varint; returns where it ends."""
    raw = (np.uint64(value) << ONE_U) ^ np.uint64(value >> np.int64(63))
    while raw >= HIGH_1:
        buf[at] = np.uint8((raw & LOW_7) | HIGH_1)
        at += 1
        raw >>= SEVEN
    buf[at] = np.uint8(raw)
    return at + 1


@inlined
def long_size(value: Any) -> Any:
    """How many bytes `write_long` writes."""
    raw = (np.uint64(value) << ONE_U) ^ np.uint64(value >> np.int64(63))
    size = np.int64(1)
    while raw >= HIGH_1:
        raw >>= SEVEN
        size += 1
    return size


@inlined
def read_little(buf: Any, at: Any, size: Any) -> Any:
    """An unsigned little-endian number of up to eight bytes, as int64."""
    raw = ZERO_U
    for index in range(size):
        raw |= np.uint64(buf[at + index]) << np.uint64(8 * index)
    return np.int64(raw)


@inlined
def write_little(buf: Any, at: Any, size: Any, value: Any) -> Any:
    """Writes the low bytes of an int64; returns where it ends."""
    raw = np.uint64(value)
    for index in range(size):
        buf[at + index] = np.uint8((raw >> np.uint64(8 * index)) & np.uint64(255))
    return at + size


@inlined
def copy(source: Any, start: Any, end: Any, buf: Any, at: Any) -> Any:
    """Copies source[start:end]; returns where the copy ends."""
    size = end - start
    for index in range(size):
        buf[at + index] = source[start + index]
    return at + size


@inlined
def same(a: Any, a_start: Any, b: Any, b_start: Any, size: Any) -> Any:
    """Whether two stretches of bytes are equal."""
    apart = np.uint8(0)
    for index in range(size):
        apart |= a[a_start + index] ^ b[b_start + index]
    return apart == np.uint8(0)


@inlined
def is_ascii(buf: Any, start: Any, end: Any) -> Any:
    """Whether every byte is below 128, which makes it valid UTF-8."""
    seen = np.uint8(0)
    for index in range(start, end):
        seen |= buf[index]
    return seen < np.uint8(128)
