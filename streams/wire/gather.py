"""Puts a batch together for the kernel: states into the arena, logits and ambiguity into float32.

Works on the admitted records of one number of experts. The numbers come out as the reference's do
(`schemas.logits.unpack`, `topology.execute`): every conversion here is exact, or the same operation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from routekeel.operators.compilation import array_in, array_out
from routekeel.schemas.limits import EXPERTS_MAX
from routekeel.streams.wire import layout as at
from routekeel.streams.wire.admit import (
    ARENA_ROW,
    HEAD_LENGTH,
    HEAD_START,
    NEW_START,
    OLD_END,
    OLD_START,
    SLOT_LAYERS,
)
from routekeel.streams.wire.check import payload
from routekeel.streams.wire.decode import NULL
from routekeel.streams.wire.primitives import WIRE, read_little
from routekeel.streams.wire.vectors import LANES, copy_block, prefetch_block, unpack_eight

# ln n as NumPy computes it, float32: the logarithm that `unpack` subtracts.
LOGARITHMS = np.array([0.0, *(np.float32(np.log(n)) for n in range(1, EXPERTS_MAX + 1))], "<f4")
# A float16's bits moved to float32's places are the number times 2^-112, subnormals included.
RESCALE = np.float32(2.0**112)
SIGN, REST = np.int64(0x8000), np.int64(0x7FFF)
NAN = np.float32(np.nan)
ZERO, ONE = np.float32(0), np.float32(1)
AHEAD, ASKED_FOR = 4, 1024
"""So many sessions ahead the first bytes of their states are asked for: they lie anywhere in memory."""


@WIRE.inlined
def unpack_halves(buf: Any, start: Any, count: Any, bits: Any, logits: Any, to: Any) -> Any:
    """float16 to float32; `bits` and `logits` are the same memory."""
    whole = count - count % LANES
    for index in range(0, whole, LANES):
        unpack_eight(buf, start + 2 * index, logits, to + index)
    for index in range(whole, count):
        half = np.int64(buf[start + 2 * index]) | np.int64(buf[start + 2 * index + 1]) << 8
        bits[to + index] = np.uint32((half & REST) << 13 | (half & SIGN) << 16)
    for index in range(whole, count):
        logits[to + index] = logits[to + index] * RESCALE


@WIRE.inlined
def unpack_top_m(
    buf: Any, start: Any, experts: Any, m: Any, logarithms: Any, bits: Any, logits: Any, to: Any
) -> Any:
    """One row of TOPM_F16: the rest's logsumexp shared evenly, the m largest in their places."""
    share = ZERO
    if m < experts:
        bits[to] = np.uint32(read_little(buf, start + 4 * m, 4))
        share = logits[to] - logarithms[experts - m]
    for expert in range(experts):
        logits[to + expert] = share
    for index in range(m):
        expert = read_little(buf, start + 2 * m + 2 * index, 2)
        unpack_halves(buf, start + 2 * index, 1, bits, logits, to + expert)


@WIRE.inlined
def unpack_logits(
    buf: Any, starts: Any, values: Any, i: Any, logarithms: Any, bits: Any, logits: Any, to: Any
) -> Any:
    """All rows of one chunk."""
    start = payload(starts, values, i, at.LOGITS)
    experts, m = values[i, at.EXPERTS], values[i, at.TOP_M]
    rows = values[i, at.STEPS] * values[i, at.LAYERS]
    if values[i, at.ENCODED] == at.F16_DENSE:
        unpack_halves(buf, start, rows * experts, bits, logits, to)
    elif values[i, at.ENCODED] == at.F32_DENSE:
        for index in range(rows * experts):
            bits[to + index] = np.uint32(read_little(buf, start + 4 * index, 4))
    else:
        for row in range(rows):
            here = start + row * (4 * m + 4)
            unpack_top_m(buf, here, experts, m, logarithms, bits, logits, to + row * experts)


@WIRE.inlined
def read_ambiguity(
    buf: Any, starts: Any, values: Any, i: Any, scale: Any, ambiguity: Any, words: Any, to: Any
) -> Any:
    """float32[T, 3] of one chunk; `words` and `ambiguity` are the same memory, flat."""
    steps = values[i, at.STEPS]
    for field in range(3):
        column = at.PREDICTIVE + field
        if values[i, column] == NULL:
            for token in range(steps):
                ambiguity[3 * (to + token) + field] = NAN
            continue
        start = payload(starts, values, i, column)
        for token in range(steps):
            words[3 * (to + token) + field] = np.uint32(read_little(buf, start + 4 * token, 4))
    if scale > ZERO:
        start = payload(starts, values, i, at.TOKEN_ENTROPY)
        for token in range(steps):
            here = 3 * (to + token)
            words[here] = np.uint32(read_little(buf, start + 4 * token, 4))
            share = ambiguity[here] * scale
            if share < ZERO:
                share = ZERO
            if share > ONE:
                share = ONE
            ambiguity[here] = share


def _arena(source_digest: int) -> Any:
    def run(old: Any, table: Any, group: Any, arena: Any, width: Any) -> Any:
        """States of the group's slots into the arena's bytes; a new session's rows are zero."""
        if source_digest != 0:
            for index in range(group.shape[0]):
                if index + AHEAD < group.shape[0]:
                    t = group[index + AHEAD]
                    size = min(table[t, OLD_END] - table[t, OLD_START], ASKED_FOR)
                    prefetch_block(old, table[t, OLD_START], size)
                s = group[index]
                to = 4 * table[s, ARENA_ROW] * width
                if table[s, OLD_START] == table[s, OLD_END]:
                    for byte in range(4 * table[s, SLOT_LAYERS] * width):
                        arena[to + byte] = np.uint8(0)
                else:
                    start = table[s, OLD_START] + table[s, HEAD_LENGTH]
                    copy_block(old, start, table[s, OLD_END] - start, arena, to)

    return run


def _inputs(source_digest: int) -> Any:
    def run(
        buf: Any, starts: Any, values: Any, chosen: Any, slots: Any, table: Any, scales: Any,
        logarithms: Any, bits: Any, logits: Any, words: Any, ambiguity: Any, arena_rows: Any,
    ) -> Any:  # fmt: skip
        if source_digest != 0:
            row, token, reference = np.int64(0), np.int64(0), np.int64(0)
            for index in range(chosen.shape[0]):
                i = chosen[index]
                unpack_logits(buf, starts, values, i, logarithms, bits, logits, row)
                read_ambiguity(buf, starts, values, i, scales[index], ambiguity, words, token)
                first = table[slots[i], ARENA_ROW]
                for layer in range(values[i, at.LAYERS]):
                    arena_rows[reference + layer] = np.int32(first + layer)
                reference += values[i, at.LAYERS]
                token += values[i, at.STEPS]
                row += values[i, at.STEPS] * values[i, at.LAYERS] * values[i, at.EXPERTS]

    return run


def _states(source_digest: int) -> Any:
    def run(table: Any, group: Any, heads: Any, arena: Any, width: Any, memory: Any) -> Any:
        """Every turn's session, head and matrix, to its place; of those that stay."""
        if source_digest != 0:
            for index in range(group.shape[0]):
                if index + AHEAD < group.shape[0]:
                    t = group[index + AHEAD]
                    size = min(table[t, HEAD_LENGTH] + 4 * table[t, SLOT_LAYERS] * width, ASKED_FOR)
                    if table[t, NEW_START] >= 0:
                        prefetch_block(memory, table[t, NEW_START], size)
                s = group[index]
                here = table[s, NEW_START]
                if here >= 0:
                    copy_block(heads, table[s, HEAD_START], table[s, HEAD_LENGTH], memory, here)
                    here += table[s, HEAD_LENGTH]
                    first = 4 * table[s, ARENA_ROW] * width
                    size = 4 * table[s, SLOT_LAYERS] * width
                    copy_block(arena, first, size, memory, here)

    return run


_BUF = array_in(types.uint8, 1)
_TABLE = array_in(types.int64, 2)
_I64S = array_in(types.int64, 1)
fill_arena = WIRE.entry(
    types.void(_BUF, _TABLE, _I64S, array_out(types.uint8, 1), types.int64), _arena
)
fill_inputs = WIRE.entry(
    types.void(
        _BUF,  # buf
        array_in(types.int32, 2),  # starts
        array_in(types.int64, 2),  # values
        _I64S,  # chosen
        array_in(types.int32, 1),  # slots
        _TABLE,
        array_in(types.float32, 1),  # scales
        array_in(types.float32, 1),  # logarithms
        array_out(types.uint32, 1),  # bits
        array_out(types.float32, 1),  # logits
        array_out(types.uint32, 1),  # words
        array_out(types.float32, 1),  # ambiguity
        array_out(types.int32, 1),  # arena_rows
    ),
    _inputs,
)
put_states = WIRE.entry(
    types.void(_TABLE, _I64S, _BUF, _BUF, types.int64, array_out(types.uint8, 1)), _states
)
