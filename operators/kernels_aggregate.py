"""From rows to a chunk, compiled: state in and out of scratch, sums to means, loads to ratios."""

from __future__ import annotations

from typing import Any

import numpy as np

from routekeel.operators import kernels_layout as at
from routekeel.operators.columns import N_MEAN_COLS
from routekeel.operators.kernels_control import first_index_of
from routekeel.operators.kernels_lanes import (
    compiled,
    inlined,
    load,
    splat,
    store,
    sum_lanes,
    where_equal,
    where_greater,
)
from routekeel.operators.kernels_math import copy_padded, max_of, softmax_into

ZERO, ONE = np.float32(0), np.float32(1)
NAN = np.float32(np.nan)
LOWEST = np.float32(-np.inf)


@compiled
def open_layer(buffer: Any, region: Any, arena: Any, slot: Any, E: Any, blocks: Any) -> Any:
    """State of a slot into a region; sums to zero. The previous baseline route is made again."""
    size = 8 * blocks
    tail = region + at.VECTORS * size
    x = tail + at.SCALARS
    for index in range(at.SUMS, at.TAIL_SIZE):
        buffer[tail + index] = ZERO
    for scalar in range(6):
        buffer[x + scalar] = arena[slot + 2 * E + scalar]
    buffer[x + at.G_BASE_MAX] = NAN
    buffer[x + at.G_CONTROLLED_MAX] = NAN
    buffer[x + at.MARGIN_MIN] = NAN
    buffer[x + at.FLIP_DISTANCE_MIN] = NAN
    w_hat, z_prev = region + at.W_HAT * size, region + at.Z_PREV * size
    copy_padded(arena, slot, buffer, w_hat, E, blocks, ZERO)
    copy_padded(arena, slot + E, buffer, z_prev, E, blocks, LOWEST)
    for index in range(3):
        buffer[tail + at.METRICS + at.PI_INTEGRAL + index] = buffer[x + index]
    if buffer[x + at.SEEN] != ZERO:
        z_max = max_of(buffer, z_prev, blocks)
        softmax_into(buffer, z_prev, region + at.W_BASE_PREV * size, blocks, z_max, ONE)
        buffer[x + at.WINNER_BASE_PREV] = first_index_of(buffer, z_prev, blocks, z_max)


@inlined
def larger(old: Any, new: Any) -> Any:
    """Maximum in which NaN counts as nothing."""
    return old if new <= old or new != new else new


@inlined
def smaller(old: Any, new: Any) -> Any:
    """Minimum in which NaN counts as nothing."""
    return old if new >= old or new != new else new


@inlined
def fold_row(buffer: Any, tail: Any) -> Any:
    """A row's metrics into its layer's sums, counts and extremes; NaN counts as nothing."""
    m = tail + at.METRICS
    x = tail + at.SCALARS
    for start in range(0, N_MEAN_COLS, 8):
        value = load(buffer, m + start)
        total, count = load(buffer, tail + at.SUMS + start), load(buffer, tail + at.COUNTS + start)
        store(buffer, tail + at.SUMS + start, where_equal(value, value, total + value, total))
        store(buffer, tail + at.COUNTS + start, where_equal(value, value, count + ONE, count))
    for flag in range(4):
        value = buffer[m + at.FLIP_BASE + flag]
        if value > ZERO:
            buffer[x + at.FLIPS_BASE + flag] += value
    buffer[x + at.G_BASE_MAX] = larger(buffer[x + at.G_BASE_MAX], buffer[m + at.G_BASE])
    buffer[x + at.G_CONTROLLED_MAX] = larger(
        buffer[x + at.G_CONTROLLED_MAX], buffer[m + at.G_CONTROLLED]
    )
    buffer[x + at.MARGIN_MIN] = smaller(buffer[x + at.MARGIN_MIN], buffer[m + at.MARGIN])
    buffer[x + at.FLIP_DISTANCE_MIN] = smaller(
        buffer[x + at.FLIP_DISTANCE_MIN], buffer[m + at.FLIP_DISTANCE]
    )
    buffer[x + at.TOKENS] += ONE


@compiled
def write_row(
    buffer: Any, region: Any, tail: Any, emitted: Any, parts: Any, E: Any, blocks: Any,
    row: Any, rows: Any, row_w_base: Any, row_w_hat: Any,
) -> Any:  # fmt: skip
    """A row's metrics and routes into the per-row output."""
    for column in range(at.A_STAR):
        rows[row, column] = buffer[tail + at.METRICS + column]
    rows[row, at.A_STAR] = parts[0]
    rows[row, at.A_EXOGENOUS] = parts[1]
    rows[row, at.APPLIED] = ONE
    base = region + at.W_BASE * 8 * blocks
    for expert in range(E):
        row_w_base[row, expert] = buffer[base + expert]
        row_w_hat[row, expert] = buffer[emitted + expert]


@compiled
def load_ratios(buffer: Any, free: Any, loads: Any, start: Any, E: Any, blocks: Any) -> Any:
    """`load.imbalance`: (max/mean, coefficient of variation) of E counts; NaN where none."""
    for expert in range(E):
        buffer[free + expert] = np.float32(loads[start + expert])
    for expert in range(E, 8 * blocks):
        buffer[free + expert] = LOWEST
    largest = max_of(buffer, free, blocks)
    if largest <= ZERO:
        return NAN, NAN
    total = splat(ZERO)
    for block in range(blocks):
        value = load(buffer, free + 8 * block)
        total = total + where_greater(value, splat(LOWEST), value, splat(ZERO))
    mean = sum_lanes(total) / np.float32(E)
    spread = splat(ZERO)
    for block in range(blocks):
        value = load(buffer, free + 8 * block)
        off = where_greater(value, splat(LOWEST), value - mean, splat(ZERO))
        spread = spread + off * off
    return largest / mean, np.sqrt(sum_lanes(spread) / np.float32(E)) / mean


@compiled
def close_layer(
    buffer: Any, region: Any, shared: Any, arena: Any, slot: Any, E: Any, blocks: Any,
    loads: Any, reference: Any, layer_out: Any, route: Any,
) -> Any:  # fmt: skip
    """State back into its slot, sums into means, the emitted route; returns rows rejected."""
    size = 8 * blocks
    tail = region + at.VECTORS * size
    x = tail + at.SCALARS
    for column in range(N_MEAN_COLS):
        count = buffer[tail + at.COUNTS + column]
        mean = buffer[tail + at.SUMS + column] / count if count > ZERO else NAN
        layer_out[reference, column] = mean
    for flag in range(4):
        layer_out[reference, at.LAYER_FLAGS + flag] = buffer[x + at.FLIPS_BASE + flag]
    applied = buffer[x + at.TOKENS] > ZERO
    for extreme in range(4):
        layer_out[reference, at.LAYER_EXTREMES + extreme] = buffer[x + at.G_BASE_MAX + extreme]
    error = buffer[tail + at.METRICS + at.PI_ERROR] if applied else NAN
    layer_out[reference, at.LAYER_LAST] = error
    layer_out[reference, at.LAYER_BETA_LAST] = (
        buffer[tail + at.METRICS + at.BETA] if applied else NAN
    )
    layer_out[reference, at.LAYER_LAMBDA_LAST] = (
        buffer[tail + at.METRICS + at.LAMBDA] if applied else NAN
    )
    for scalar in range(4):
        layer_out[reference, at.LAYER_LAST + 1 + scalar] = buffer[x + scalar]
    half = (loads.shape[0] - 8) // 2
    free = shared + at.LOADS * size
    for kind in range(2):
        start = kind * half + reference * E
        over_mean, variation = load_ratios(buffer, free, loads, start, E, blocks)
        layer_out[reference, at.LAYER_LOAD + kind] = over_mean
        layer_out[reference, at.LAYER_LOAD + 2 + kind] = variation
    layer_out[reference, at.LAYER_TOKENS] = buffer[x + at.TOKENS]
    layer_out[reference, at.LAYER_REJECTED] = buffer[x + at.REJECTED]
    w_hat, z_prev = region + at.W_HAT * size, region + at.Z_PREV * size
    if buffer[x + at.SEEN] == ZERO:
        return buffer[x + at.REJECTED]
    for expert in range(E):
        route[reference, expert] = buffer[w_hat + expert]
    top = max_of(buffer, w_hat, blocks)
    own = np.int64(first_index_of(buffer, w_hat, blocks, top))
    winner = np.int64(buffer[x + at.WINNER])
    route[reference, own] = buffer[w_hat + winner]
    route[reference, winner] = top
    if applied:
        for expert in range(E):
            arena[slot + expert] = buffer[w_hat + expert]
            arena[slot + E + expert] = buffer[z_prev + expert]
        for scalar in range(6):
            arena[slot + 2 * E + scalar] = buffer[x + scalar]
    return buffer[x + at.REJECTED]
