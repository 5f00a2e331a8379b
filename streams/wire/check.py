"""The checks of `topology.chunk` in compiled code: which decoded records are plainly valid chunks.

A record that fails one here is not refused; it goes to `chunk_from`, which knows the reason, and
which is the reference. So this may be stricter than it (no probe, ASCII only), never laxer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import types

from routekeel.operators.compilation import array_in, array_out
from routekeel.schemas import limits
from routekeel.schemas.records import ROUTER_LOGITS
from routekeel.streams.topology.chunk import TEXT_FIELDS
from routekeel.streams.wire import layout as at
from routekeel.streams.wire.decode import NULL, Columns
from routekeel.streams.wire.primitives import WIRE, read_little, read_long, same
from routekeel.streams.wire.program import index_of

SESSION_ID_BYTES_MAX, TEXT_BYTES_MAX = limits.SESSION_ID_BYTES_MAX, limits.TEXT_BYTES_MAX
STEPS_MAX, EXPERTS_MAX, LAYERS_MAX = limits.STEPS_MAX, limits.EXPERTS_MAX, limits.LAYERS_MAX
ROUTES_MAX, VALUES_MAX = limits.ROUTES_MAX, limits.VALUES_MAX
POSITION_MAX, SEQUENCE_MAX = limits.POSITION_MAX, limits.SEQUENCE_MAX
EVENT_TIME_US_MIN, EVENT_TIME_US_MAX = limits.EVENT_TIME_US_MIN, limits.EVENT_TIME_US_MAX
# One bit per column that holds a text with the common limit.
TEXTS = sum(1 << index_of(ROUTER_LOGITS)[name] for name in TEXT_FIELDS)
EXPONENT_16, EXPONENT_32 = np.int64(0x7C00), np.int64(0x7F800000)
ONE_BITS = np.int64(0x3F800000)


def check(columns: Columns, keys: Sequence[bytes | None]) -> None:
    """Clear `good` where a record is not plainly a valid chunk under its key."""
    count = len(keys)
    joined = np.frombuffer(b"".join([key or b"" for key in keys]) or b"\0", np.uint8)
    bounds = np.zeros(count + 1, np.int64)
    np.cumsum(np.fromiter([len(key or b"") for key in keys], np.int64, count), out=bounds[1:])
    run(*columns, joined, bounds)


@WIRE.inlined
def payload(starts: Any, values: Any, i: Any, field: Any) -> Any:
    """Where a string's or matrix's own bytes begin."""
    return np.int64(starts[i, field + 1]) - values[i, field]


@WIRE.inlined
def layers_are_sound(buf: Any, starts: Any, values: Any, i: Any) -> Any:
    """Whether the layer ids ascend from 0 or more, and are within the limits with the experts."""
    here, end = np.int64(starts[i, at.LAYERS]), np.int64(starts[i, at.LAYERS + 1])
    _, here = read_long(buf, here, end)
    before = np.int64(-1)
    for _ in range(values[i, at.LAYERS]):
        layer, here = read_long(buf, here, end)
        if layer <= before:
            return False
        before = layer
    experts, rows = values[i, at.EXPERTS], values[i, at.STEPS] * values[i, at.LAYERS]
    within = before < LAYERS_MAX and (before + 1) * experts <= ROUTES_MAX
    return within and rows * experts <= VALUES_MAX


@WIRE.inlined
def numbers_are_sound(values: Any, i: Any) -> Any:
    """Whether counts and texts are within their limits."""
    if not 0 <= values[i, at.POSITION_START] <= POSITION_MAX:
        return False
    if not 0 <= values[i, at.SEQUENCE] <= SEQUENCE_MAX or values[i, at.DROPPED_BEFORE] < 0:
        return False
    longest = np.int64(0)
    for field in range(at.FIELDS):
        if TEXTS >> field & 1:
            longest = max(longest, values[i, field])
    return longest <= TEXT_BYTES_MAX


@WIRE.inlined
def row_bytes(values: Any, i: Any) -> Any:
    """Bytes of a row of logits, −1 where the encoding or its parameters are not known."""
    encoding, experts, top_m = values[i, at.ENCODED], values[i, at.EXPERTS], values[i, at.TOP_M]
    if encoding == at.F16_DENSE:
        return 2 * experts
    if encoding == at.F32_DENSE:
        return 4 * experts
    if encoding == at.F16_TOP_M and 1 <= top_m <= experts:
        return 4 * top_m + 4
    return np.int64(-1)


@WIRE.inlined
def halves_are_finite(buf: Any, start: Any, count: Any) -> Any:
    """Whether no float16 is NaN or infinite."""
    bad = np.int64(0)
    for index in range(count):
        high = np.int64(buf[start + 2 * index + 1]) << 8
        bad |= np.int64((high & EXPONENT_16) == EXPONENT_16)
    return bad == 0


@WIRE.inlined
def singles_are_finite(buf: Any, start: Any, count: Any) -> Any:
    """Whether no float32 is NaN or infinite."""
    bad = np.int64(0)
    for index in range(count):
        bits = read_little(buf, start + 4 * index, 4)
        bad |= np.int64((bits & EXPONENT_32) == EXPONENT_32)
    return bad == 0


@WIRE.inlined
def top_m_is_sound(buf: Any, start: Any, rows: Any, experts: Any, top_m: Any) -> Any:
    """Whether the values are finite and the ids differ and exist; −∞ of no rest is finite enough."""
    for row in range(rows):
        here = start + row * (4 * top_m + 4)
        if not halves_are_finite(buf, here, top_m):
            return False
        if top_m < experts and not singles_are_finite(buf, here + 4 * top_m, 1):
            return False
        for m in range(top_m):
            one = read_little(buf, here + 2 * top_m + 2 * m, 2)
            if one >= experts:
                return False
            for other in range(m):
                if one == read_little(buf, here + 2 * top_m + 2 * other, 2):
                    return False
    return True


@WIRE.inlined
def logits_are_sound(buf: Any, starts: Any, values: Any, i: Any) -> Any:
    """Whether the logits have the right length and every one is finite."""
    rows = values[i, at.STEPS] * values[i, at.LAYERS]
    wanted = row_bytes(values, i)
    if wanted < 0 or values[i, at.LOGITS] != rows * wanted:
        return False
    start = payload(starts, values, i, at.LOGITS)
    encoding, experts = values[i, at.ENCODED], values[i, at.EXPERTS]
    if encoding == at.F16_DENSE:
        return halves_are_finite(buf, start, rows * experts)
    if encoding == at.F32_DENSE:
        return singles_are_finite(buf, start, rows * experts)
    return top_m_is_sound(buf, start, rows, experts, values[i, at.TOP_M])


@WIRE.inlined
def shares_are_sound(buf: Any, starts: Any, values: Any, i: Any, field: Any) -> Any:
    """Whether an ambiguity matrix is absent, or has a float32 in 0…1 for every token."""
    if values[i, field] == NULL:
        return True
    if values[i, field] != 4 * values[i, at.STEPS]:
        return False
    start = payload(starts, values, i, field)
    most = np.int64(0)
    for token in range(values[i, at.STEPS]):
        # Floats ≥ 0 are ordered as their bits; a negative one has the highest bit set.
        most = max(most, read_little(buf, start + 4 * token, 4))
    return most <= ONE_BITS


@WIRE.inlined
def optional_is_sound(buf: Any, starts: Any, values: Any, i: Any) -> Any:
    """Whether the optional fields have the lengths that the shape asks for."""
    steps = values[i, at.STEPS]
    if values[i, at.PROBE] != NULL or values[i, at.FLIP_DISTANCE] != NULL:
        return False
    if values[i, at.TOKEN_IDS] != NULL and values[i, at.TOKEN_IDS] != 4 * steps:
        return False
    if values[i, at.TOKEN_ENTROPY] != NULL and values[i, at.TOKEN_ENTROPY] != 4 * steps:
        return False
    sound = True
    for field in range(at.PREDICTIVE, at.SPECIFICATION + 1):
        sound = sound and shares_are_sound(buf, starts, values, i, field)
    return sound


@WIRE.inlined
def is_valid(buf: Any, starts: Any, values: Any, i: Any, keys: Any, start: Any, end: Any) -> Any:
    """Whether record i is plainly a valid chunk."""
    size = values[i, at.SESSION_ID]
    if not 1 <= size <= SESSION_ID_BYTES_MAX or size != end - start:
        return False
    session = payload(starts, values, i, at.SESSION_ID)
    if buf[session] == 0 or not same(buf, session, keys, start, size):
        return False
    if not 1 <= values[i, at.STEPS] <= STEPS_MAX or not 1 <= values[i, at.EXPERTS] <= EXPERTS_MAX:
        return False
    if not 1 <= values[i, at.LAYERS] <= LAYERS_MAX or not layers_are_sound(buf, starts, values, i):
        return False
    if not 1 <= values[i, at.TOP_K] <= values[i, at.EXPERTS]:
        return False
    if not numbers_are_sound(values, i):
        return False
    if not EVENT_TIME_US_MIN <= values[i, at.EVENT_TIME] <= EVENT_TIME_US_MAX:
        return False
    return optional_is_sound(buf, starts, values, i) and logits_are_sound(buf, starts, values, i)


def _run(source_digest: int) -> Any:
    def run(buf: Any, starts: Any, values: Any, good: Any, keys: Any, bounds: Any) -> Any:
        if source_digest != 0:
            for i in range(good.shape[0]):
                if good[i]:
                    good[i] = is_valid(buf, starts, values, i, keys, bounds[i], bounds[i + 1])

    return run


SIGNATURE = types.void(
    array_in(types.uint8, 1),  # buf
    array_in(types.int32, 2),  # starts
    array_in(types.int64, 2),  # values
    array_out(types.boolean, 1),  # good
    array_in(types.uint8, 1),  # keys
    array_in(types.int64, 1),  # bounds
)
run = WIRE.entry(SIGNATURE, _run)
