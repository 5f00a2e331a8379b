"""Encodes a batch's outputs in one compiled pass: programs in, the records' bytes end to end out.

The kernel's arrays are read as bytes where they are; nothing becomes a Python object before the
finished record.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from routekeel.operators.columns import CHUNK, LAYER, N_LAYER_COLS
from routekeel.operators.compilation import array_in, array_out
from routekeel.streams.topology import cadence
from routekeel.streams.wire import layout as at
from routekeel.streams.wire import output_program as program
from routekeel.streams.wire.admit import (
    HEAD_LENGTH,
    HEAD_START,
    HIGH,
    OLD_END,
    OLD_START,
    OPENED,
    POSITION,
    PRODUCER_AT,
    REQUEST_AT,
    SEEN,
    state_bytes,
)
from routekeel.streams.wire.primitives import WIRE, copy, read_little, write_little, write_long
from routekeel.streams.wire.vectors import copy_block

COPY, SPAN, NUMBER, SHARE = program.COPY, program.SPAN, program.NUMBER, program.SHARE
CLARITY, LAYER_COLUMN, LAYER_NAN = program.CLARITY, program.LAYER_COLUMN, program.LAYER_NAN
LOAD, ROUTE, STATE = program.LOAD, program.ROUTE, program.STATE
NAN_BITS = np.int64(0x7FC00000)
NULL_BRANCH, VALUE_BRANCH = np.uint8(0), np.uint8(2)
A_STAR = CHUNK["a_star"]
NOTHING, ROUTE_ONLY, ROUTE_AND_STATE = (
    cadence.NOTHING,
    cadence.ROUTE,
    cadence.ROUTE_AND_STATE,
)
DELTA, TOKENS = LAYER["delta_w_hat"], LAYER["tokens"]
ZERO = np.float32(0)


@WIRE.inlined
def write_share(bits: Any, chunk: Any, k: Any, column: Any, out: Any, here: Any) -> Any:
    """A nullable float: null for NaN."""
    value = chunk[k, column]
    if value != value:
        out[here] = NULL_BRANCH
        return here + 1
    out[here] = VALUE_BRANCH
    return write_little(out, here + 1, 4, np.int64(bits[k, column]))


@WIRE.inlined
def write_clarity(chunk: Any, k: Any, one: Any, one_bits: Any, out: Any, here: Any) -> Any:
    """1 − A* in double precision, then rounded, as the reference does it."""
    value = chunk[k, A_STAR]
    if value != value:
        out[here] = NULL_BRANCH
        return here + 1
    one[0] = np.float32(np.float64(1.0) - np.float64(value))
    out[here] = VALUE_BRANCH
    return write_little(out, here + 1, 4, np.int64(one_bits[0]))


@WIRE.inlined
def write_layers(words: Any, first: Any, layers: Any, column: Any, out: Any, here: Any) -> Any:
    """float32[L]: one column of the kernel's layer table, whose rows are `words`."""
    here = write_long(out, here, 4 * layers)
    for layer in range(layers):
        word = np.int64(words[(first + layer) * N_LAYER_COLS + column])
        here = write_little(out, here, 4, word)
    return here


@WIRE.inlined
def write_block(source: Any, start: Any, size: Any, nullable: Any, out: Any, here: Any) -> Any:
    """Bytes with their length, as they are."""
    if nullable != 0:
        out[here] = VALUE_BRANCH
        here += 1
    here = write_long(out, here, size)
    copy_block(source, start, size, out, here)
    return here + size


@WIRE.inlined
def write_load(loads: Any, start: Any, count: Any, out: Any, here: Any) -> Any:
    """Counts as uint16: the low half of each int32."""
    here = write_long(out, here, 2 * count)
    for index in range(count):
        out[here + 2 * index] = loads[start + 4 * index]
        out[here + 2 * index + 1] = loads[start + 4 * index + 1]
    return here + 2 * count


@WIRE.inlined
def crosses(start: Any, steps: Any, every: Any) -> Any:
    """`cadence.crosses`."""
    return every > 0 and (start + steps) // every > start // every


@WIRE.inlined
def moved(layer_table: Any, first: Any, layers: Any) -> Any:
    """`cadence.moved`."""
    most = ZERO
    for layer in range(layers):
        step = layer_table[first + layer, DELTA] * layer_table[first + layer, TOKENS]
        if step > most:
            most = step
    return most


@WIRE.inlined
def publish(
    values: Any, i: Any, table: Any, s: Any, heads: Any, layer_table: Any, first: Any,
    every: Any, state_every: Any, change: Any, one: Any, one_bits: Any,
) -> Any:  # fmt: skip
    """`execute._publish`: what record i publishes; leaves the drift since then in the head."""
    place = table[s, HEAD_START] + at.AT_DRIFT
    one_bits[0] = np.uint32(read_little(heads, place, 4))
    if change == change:
        one[0] = one[0] + moved(layer_table, first, values[i, at.LAYERS])
    start, steps = values[i, at.POSITION_START], values[i, at.STEPS]
    is_first = table[s, OPENED] == 1 and table[s, OLD_START] == table[s, OLD_END]
    table[s, OPENED] = 2
    kind = NOTHING
    if is_first or crosses(start, steps, state_every):
        kind = ROUTE_AND_STATE
    elif crosses(start, steps, every) or one[0] > change:
        kind = ROUTE_ONLY
    if kind != NOTHING:
        one[0] = ZERO
    write_little(heads, place, 4, np.int64(one_bits[0]))
    return kind


@WIRE.inlined
def move_head(
    i: Any, table: Any, s: Any, heads: Any, marks: Any, clock: Any, offset: Any, epoch: Any
) -> Any:
    """The session's head as it is right after record i."""
    head = table[s, HEAD_START]
    write_little(heads, head + at.AT_EPOCH, 4, epoch)
    write_little(heads, head + at.AT_OFFSET, 8, offset)
    write_little(heads, head + at.AT_TOUCHED, 8, clock)
    write_little(heads, table[s, PRODUCER_AT] + 8, 8, marks[i, HIGH])
    write_little(heads, table[s, PRODUCER_AT] + 16, 8, marks[i, SEEN])
    write_little(heads, table[s, REQUEST_AT] + 3, 8, marks[i, POSITION])


@WIRE.inlined
def encode_one(
    operations: Any, constants: Any, buf: Any, starts: Any, i: Any, k: Any, layers: Any,
    experts: Any, first: Any, numbers: Any, chunk: Any, chunk_bits: Any, one: Any, one_bits: Any,
    words: Any, loads: Any, half: Any, route: Any, route_size: Any, state: Any, heads: Any,
    head: Any, head_size: Any, out: Any, here: Any,
) -> Any:  # fmt: skip
    """One record by its program; returns where it ends."""
    for op in range(operations.shape[0]):
        code, argument = operations[op, 0], operations[op, 1]
        if code == COPY:
            here = copy(constants, np.int64(argument), np.int64(operations[op, 2]), out, here)
        elif code == SPAN:
            here = copy(
                buf, np.int64(starts[i, argument]), np.int64(starts[i, argument + 1]), out, here
            )
        elif code == NUMBER:
            here = write_long(out, here, numbers[k, argument])
        elif code == SHARE:
            here = write_share(chunk_bits, chunk, k, argument, out, here)
        elif code == CLARITY:
            here = write_clarity(chunk, k, one, one_bits, out, here)
        elif code == LAYER_COLUMN:
            here = write_layers(words, first, layers, argument, out, here)
        elif code == LAYER_NAN:
            here = write_long(out, here, 4 * layers)
            for _ in range(layers):
                here = write_little(out, here, 4, NAN_BITS)
        elif code == LOAD:
            start = 4 * (argument * half + first * experts)
            here = write_load(loads, start, layers * experts, out, here)
        elif code == ROUTE:
            start, size = route_size * first * experts, route_size * layers * experts
            here = write_block(route, start, size, argument, out, here)
        else:
            size = state_bytes(layers, experts)
            if argument != 0:
                out[here] = VALUE_BRANCH
                here += 1
            here = write_long(out, here, head_size + size)
            here = copy(heads, head, head + head_size, out, here)
            copy_block(state, 4 * first * (2 * experts + 6), size, out, here)
            here += size
    return here


def _encode(source_digest: int) -> Any:
    def run(
        telemetry: Any, telemetry_constants: Any, route_only: Any, route_constants: Any,
        with_state: Any, with_state_constants: Any, buf: Any, starts: Any, values: Any,
        chosen: Any, slots: Any, table: Any, heads: Any, marks: Any, clocks: Any, offsets: Any,
        epoch: Any, every: Any, state_every: Any, change: Any, firsts: Any, numbers: Any,
        chunk: Any, chunk_bits: Any, one: Any, one_bits: Any, layer_table: Any, words: Any,
        loads: Any, half: Any, route: Any, route_size: Any, state: Any, out: Any, ends: Any,
    ) -> Any:  # fmt: skip
        if source_digest != 0:
            here = np.int64(0)
            for k in range(chosen.shape[0]):
                i = chosen[k]
                s = slots[i]
                layers, experts = values[i, at.LAYERS], values[i, at.EXPERTS]
                head, head_size = table[s, HEAD_START], table[s, HEAD_LENGTH]
                move_head(i, table, s, heads, marks, clocks[i], offsets[i], epoch)
                kind = publish(
                    values, i, table, s, heads, layer_table, firsts[k], every, state_every,
                    change, one, one_bits,
                )  # fmt: skip
                here = encode_one(
                    telemetry, telemetry_constants, buf, starts, i, k, layers, experts, firsts[k],
                    numbers, chunk, chunk_bits, one, one_bits, words, loads, half, route,
                    route_size, state, heads, head, head_size, out, here,
                )  # fmt: skip
                ends[k, 0] = here
                if kind == ROUTE_ONLY:
                    here = encode_one(
                        route_only, route_constants, buf, starts, i, k, layers, experts,
                        firsts[k], numbers, chunk, chunk_bits, one, one_bits, words, loads, half,
                        route, route_size, state, heads, head, head_size, out, here,
                    )  # fmt: skip
                elif kind == ROUTE_AND_STATE:
                    here = encode_one(
                        with_state, with_state_constants, buf, starts, i, k, layers, experts,
                        firsts[k], numbers, chunk, chunk_bits, one, one_bits, words, loads, half,
                        route, route_size, state, heads, head, head_size, out, here,
                    )  # fmt: skip
                ends[k, 1] = here

    return run


_BUF, _I64S, _I64T = (
    array_in(types.uint8, 1),
    array_in(types.int64, 1),
    array_in(types.int64, 2),
)
_PROGRAM = array_in(types.int32, 2)
encode_outputs = WIRE.entry(
    types.void(
        _PROGRAM, _BUF, _PROGRAM, _BUF, _PROGRAM, _BUF,  # the three programs and their constants
        _BUF,  # buf
        array_in(types.int32, 2),  # starts
        _I64T,  # values
        _I64S,  # chosen
        array_in(types.int32, 1),  # slots
        array_out(types.int64, 2),  # table
        array_out(types.uint8, 1),  # heads
        _I64T,  # marks
        _I64S, _I64S, types.int64,  # clocks, offsets, epoch
        types.int64, types.int64, types.float32,  # every, state_every, change
        _I64S,  # firsts: each chunk's first row in the kernel's tables
        _I64T,  # numbers
        array_in(types.float32, 2), array_in(types.uint32, 2),  # chunk and its bits
        array_out(types.float32, 1), array_out(types.uint32, 1),  # one float and its bits
        array_in(types.float32, 2), array_in(types.uint32, 1),  # the layer table and its bits
        _BUF, types.int64,  # loads and half
        _BUF, types.int64,  # route and the bytes of one weight
        _BUF,  # state
        array_out(types.uint8, 1),  # out
        array_out(types.int64, 2),  # ends
    ),
    _encode,
)  # fmt: skip
