"""exp, log, softmax and ‖Σ‖₂ on numba's lanes: the compiled twin of `arithmetic` and `gates`.

A route lives in a float32 buffer at an offset, padded to whole lanes; padding is −∞ among logits
and 0 among weights, so that it adds nothing to any sum.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from routekeel.operators import arithmetic as a
from routekeel.operators.kernels_lanes import (
    exponent_of,
    first_lane,
    inlined,
    load,
    mantissa_of,
    max_lanes,
    power_of_two_in,
    splat,
    store,
    sum_lanes,
    where_equal,
    where_greater,
)
from routekeel.operators.sensitivity import NEGLIGIBLE, NEWTON_STEPS

ZERO, ONE, HALF = a.ZERO, a.ONE, a.HALF
EXP_MIN, EXP_OF_0, EXP_MAX = a.EXP_MIN, a.EXP_OF_0, a.EXP_MAX
LOG2_E, ROUNDER = a.LOG2_E, a.ROUNDER
LN2_HIGH, LN2_LOW = a.LN2_HIGH, a.LN2_LOW
EXP_2, EXP_3, EXP_4, EXP_5, EXP_6 = a.EXP_2, a.EXP_3, a.EXP_4, a.EXP_5, a.EXP_6
SQRT_2, LOG_3, LOG_4, LOG_5, LOG_6 = a.SQRT_2, a.LOG_3, a.LOG_4, a.LOG_5, a.LOG_6
LOG_7, LOG_8, LOG_9, LOG_10 = a.LOG_7, a.LOG_8, a.LOG_9, a.LOG_10
MINUS_INFINITY = np.float32(-np.inf)


@inlined
def held8(x: Any) -> Any:
    """What `exp8_bounded` takes for x: what is too small goes where the result is 0."""
    return where_greater(x, splat(EXP_MIN), x, splat(EXP_OF_0))


@inlined
def exp8_bounded(held: Any) -> Any:
    """`exp8` of what `held8` gives and is not above EXP_MAX, as a softmax's exponents are not."""
    shifted = held * LOG2_E + ROUNDER
    n = shifted - ROUNDER
    r = (held - n * LN2_HIGH) - n * LN2_LOW
    square = r * r
    low = ONE + (r + square * (EXP_2 + EXP_3 * r))
    high = (EXP_4 + EXP_5 * r) + EXP_6 * square
    p = low + (square * square) * high
    return p * power_of_two_in(shifted)


@inlined
def exp8(x: Any) -> Any:
    """`arithmetic.exp32`, eight at once."""
    return exp8_bounded(held8(where_greater(x, splat(EXP_MAX), splat(EXP_MAX), x)))


@inlined
def exp1(x: Any) -> Any:
    """e^x of one float32."""
    return first_lane(exp8(splat(x)))


@inlined
def log1(x: Any) -> Any:
    """`arithmetic.log32` of one float32."""
    value = splat(x)
    n = exponent_of(value)
    m = mantissa_of(value)
    n = where_greater(m, splat(SQRT_2), n + ONE, n)
    m = where_greater(m, splat(SQRT_2), m * HALF, m)
    f = m - ONE
    p = LOG_10 * f + LOG_9
    p = p * f + LOG_8
    p = p * f + LOG_7
    p = p * f + LOG_6
    p = p * f + LOG_5
    p = p * f + LOG_4
    p = p * f + LOG_3
    square = f * f
    tail = (p * f) * square - HALF * square
    return first_lane((n * LN2_LOW + tail) + (f + n * LN2_HIGH))


@inlined
def copy_padded(source: Any, at: Any, buffer: Any, to: Any, E: Any, blocks: Any, pad: Any) -> Any:
    """Copies E floats into a padded place; False where one of them is NaN or infinite."""
    whole = E // 8
    bad = splat(ZERO)
    for block in range(whole):
        x = load(source, at + 8 * block)
        store(buffer, to + 8 * block, x)
        bad = bad + where_equal(x - x, splat(ZERO), splat(ZERO), splat(ONE))
    finite = sum_lanes(bad) == ZERO
    for index in range(8 * whole, E):
        value = source[at + index]
        buffer[to + index] = value
        finite = finite and value - value == ZERO
    for index in range(E, 8 * blocks):
        buffer[to + index] = pad
    return finite


@inlined
def max_of(buffer: Any, at: Any, blocks: Any) -> Any:
    """Largest value."""
    best = load(buffer, at)
    for block in range(1, blocks):
        x = load(buffer, at + 8 * block)
        best = where_greater(x, best, x, best)
    return max_lanes(best)


@inlined
def softmax_into(buffer: Any, z: Any, w: Any, blocks: Any, z_max: Any, beta: Any) -> Any:
    """w = softmax(β z); returns the largest weight, Σ e and Σ e·x with x = β(z − max)."""
    total = splat(ZERO)
    moment = splat(ZERO)
    for block in range(blocks):
        x = held8((load(buffer, z + 8 * block) - z_max) * beta)
        e = exp8_bounded(x)
        store(buffer, w + 8 * block, e)
        total = total + e
        moment = moment + e * x
    mass = sum_lanes(total)
    inverse = ONE / mass
    for block in range(blocks):
        store(buffer, w + 8 * block, load(buffer, w + 8 * block) * inverse)
    return inverse, mass, sum_lanes(moment)


@inlined
def covariance_norms(buffer: Any, w: Any, blocks: Any, top: Any) -> Any:
    """(‖Σ(w)‖₂, ‖Σ(w)‖_F, Σ w²): `sensitivity.covariance_norms` of one route with max `top`."""
    second = splat(ZERO)
    rest = splat(ZERO)
    rest_2 = splat(ZERO)
    rest_3 = splat(ZERO)
    tied = splat(ZERO)
    for block in range(blocks):
        x = load(buffer, w + 8 * block)
        v = where_equal(x, splat(top), splat(ZERO), x)
        tied = tied + where_equal(x, splat(top), splat(ONE), splat(ZERO))
        second = where_greater(v, second, v, second)
        rest = rest + v
        square = v * v
        rest_2 = rest_2 + square
        rest_3 = rest_3 + square * v
    more = sum_lanes(tied) - ONE
    top_2 = top * top
    s = sum_lanes(rest) + more * top
    r_2 = sum_lanes(rest_2) + more * top_2
    r_3 = sum_lanes(rest_3) + more * (top_2 * top)
    squared = (top_2 * (s * s + r_2) + r_2 * ((ONE + top_2) + r_2)) - (r_3 + r_3)
    frobenius = np.sqrt(max(squared, ZERO))
    if more > ZERO:
        return top, frobenius, top_2 + r_2
    w_2 = max_lanes(second)
    if s < NEGLIGIBLE:
        return s + w_2, frobenius, top_2 + r_2
    gap = top - w_2
    low = (w_2 * gap) / (top + w_2)
    high = max(low, min(gap, top * (s + w_2) - w_2))
    inverse_top = ONE / top
    offset = HALF * (low + high)
    for _ in range(NEWTON_STEPS):
        k = splat(ZERO)
        slope = splat(ZERO)
        for block in range(blocks):
            x = load(buffer, w + 8 * block)
            v = where_equal(x, splat(top), splat(ZERO), x)
            r = ONE / (offset + (w_2 - v))
            t = v * r
            k = k + t
            slope = slope + t * r
        mass = sum_lanes(k)
        off = ONE - ((gap - offset) * inverse_top) * mass
        offset = offset - (mass * off) / (sum_lanes(slope) + inverse_top * (mass * mass))
        offset = max(low, min(gap, offset))
    return w_2 + offset, frobenius, top_2 + r_2
