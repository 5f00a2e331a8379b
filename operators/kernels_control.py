"""The control of one token at one layer, compiled: schedule, PI, guard, moving average.

The twin of `schedules`, `pi`, `guard`, `ema` and `hysteresis`, in the order of the control law.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from routekeel.operators import kernels_layout as at
from routekeel.operators.kernels_lanes import (
    inlined,
    lane_index,
    load,
    max_lanes,
    splat,
    sqrt8,
    store,
    sum_lanes,
    where_equal,
    where_greater,
)
from routekeel.operators.kernels_math import covariance_norms, exp1, log1, softmax_into

ZERO, ONE = np.float32(0), np.float32(1)
FAR = np.float32(-1e9)
NAN = np.float32(np.nan)
(BETA_MIN, BETA_MAX, LAMBDA_MIN, LAMBDA_MAX) = (
    at.BETA_MIN,
    at.BETA_MAX,
    at.LAMBDA_MIN,
    at.LAMBDA_MAX,
)
G_TARGET, K_P, K_I, INTEGRAL_MAX = at.G_TARGET, at.K_P, at.K_I, at.INTEGRAL_MAX
DEAD_BAND, REGULATE, KNEE, HYSTERESIS = at.DEAD_BAND, at.REGULATE, at.KNEE, at.HYSTERESIS
SPIKE_DISTANCE, SPIKE_COUNT, HOLD_TICKS = at.SPIKE_DISTANCE, at.SPIKE_COUNT, at.HOLD_TICKS


@inlined
def clip(value: Any, low: Any, high: Any) -> Any:
    """`arithmetic.clip32`."""
    below = value if value < high else high
    return below if below > low else low


@inlined
def schedule(cfg: Any, a_star: Any) -> Any:
    """`schedules.schedule`: (β0, λ0)."""
    clarity = clip(ONE - a_star / cfg[KNEE], ZERO, ONE)
    beta = cfg[BETA_MIN] + (cfg[BETA_MAX] - cfg[BETA_MIN]) * clarity
    rate = cfg[LAMBDA_MIN] + (cfg[LAMBDA_MAX] - cfg[LAMBDA_MIN]) * clarity
    return beta, rate


@inlined
def tightened(cfg: Any, beta_0: Any, rate_0: Any, u: Any) -> Any:
    """`schedules.tightened`: (β, λ) under the PI output u, within their limits."""
    factor = exp1(-u)
    beta = clip(beta_0 * factor, cfg[BETA_MIN], cfg[BETA_MAX])
    rate = clip(rate_0 * factor, cfg[LAMBDA_MIN], cfg[LAMBDA_MAX])
    return beta, rate


@inlined
def pi_update(cfg: Any, gain: Any, beta_0: Any, rate_0: Any, integral: Any) -> Any:
    """`pi.pi_update`: (e, I, u, β, λ) from the measured gain λ1 β1 ‖Σ‖₂."""
    error = gain - cfg[G_TARGET]
    if abs(error) < cfg[DEAD_BAND]:
        error = ZERO
    low = -cfg[INTEGRAL_MAX] if cfg[REGULATE] != ZERO else ZERO
    trial = clip(integral + error, low, cfg[INTEGRAL_MAX])
    u = cfg[K_P] * error + cfg[K_I] * trial
    if cfg[REGULATE] == ZERO:
        u = u if u > ZERO else ZERO
    beta, rate = tightened(cfg, beta_0, rate_0, u)
    at_low = beta == cfg[BETA_MIN] and rate == cfg[LAMBDA_MIN] and error > ZERO
    at_high = beta == cfg[BETA_MAX] and rate == cfg[LAMBDA_MAX] and error < ZERO
    if not (at_low or at_high):
        return error, trial, u, beta, rate
    u = cfg[K_P] * error + cfg[K_I] * integral
    if cfg[REGULATE] == ZERO:
        u = u if u > ZERO else ZERO
    beta, rate = tightened(cfg, beta_0, rate_0, u)
    return error, integral, u, beta, rate


@inlined
def distance(buffer: Any, x: Any, y: Any, blocks: Any) -> Any:
    """‖x − y‖₂."""
    total = splat(ZERO)
    for block in range(blocks):
        step = load(buffer, x + 8 * block) - load(buffer, y + 8 * block)
        total = total + step * step
    return np.sqrt(sum_lanes(total))


@inlined
def first_index_of(buffer: Any, x: Any, blocks: Any, value: Any) -> Any:
    """The lowest index at which x has the value, as a float32."""
    best = splat(FAR)
    for block in range(blocks):
        place = ZERO - (lane_index() + np.float32(8 * block))
        here = where_equal(load(buffer, x + 8 * block), splat(value), place, splat(FAR))
        best = where_greater(here, best, here, best)
    # Not −max: the index 0 must not come out as −0, which differs in its bytes.
    return ZERO - max_lanes(best)


@inlined
def move(buffer: Any, w: Any, w_hat: Any, base: Any, blocks: Any, rate: Any) -> Any:
    """`ema.move` in place on ŵ: (max ŵ, Σŵ², ‖Δŵ‖, S, ‖ŵ − softmax z‖)."""
    keep = ONE - rate
    total = splat(ZERO)
    for block in range(blocks):
        mixed = load(buffer, w_hat + 8 * block) * keep + load(buffer, w + 8 * block) * rate
        total = total + mixed
    mass = sum_lanes(total)
    top = splat(ZERO)
    square = splat(ZERO)
    step_2 = splat(ZERO)
    alike = splat(ZERO)
    shift_2 = splat(ZERO)
    for block in range(blocks):
        old = load(buffer, w_hat + 8 * block)
        new = (old * keep + load(buffer, w + 8 * block) * rate) / splat(mass)
        step = new - old
        shift = new - load(buffer, base + 8 * block)
        top = where_greater(new, top, new, top)
        square = square + new * new
        step_2 = step_2 + step * step
        shift_2 = shift_2 + shift * shift
        alike = alike + sqrt8(new * old)
        store(buffer, w_hat + 8 * block, new)
    return (
        max_lanes(top),
        sum_lanes(square),
        np.sqrt(sum_lanes(step_2)),
        sum_lanes(alike),
        np.sqrt(sum_lanes(shift_2)),
    )


@inlined
def softmax_route(buffer: Any, region: Any, tail: Any, blocks: Any, beta: Any) -> Any:
    """w = softmax(β z) of the region, its largest weight kept for the norms."""
    x = tail + at.SCALARS
    z, w = region + at.Z * 8 * blocks, region + at.W * 8 * blocks
    top, _, _ = softmax_into(buffer, z, w, blocks, buffer[x + at.Z_MAX], beta)
    buffer[x + at.TOP_W] = top


@inlined
def keep_norms(buffer: Any, region: Any, tail: Any, blocks: Any) -> Any:
    """‖Σ(w)‖₂ and ‖Σ(w)‖_F of the region's w, where its gains will be; returns the first."""
    x = tail + at.SCALARS
    w = region + at.W * 8 * blocks
    two, frobenius, _ = covariance_norms(buffer, w, blocks, buffer[x + at.TOP_W])
    buffer[tail + at.METRICS + at.G_CONTROLLED] = two
    buffer[tail + at.METRICS + at.GRAD_NORM] = frobenius
    return two


@inlined
def control(
    cfg: Any, buffer: Any, region: Any, tail: Any, blocks: Any, known: Any, beta_0: Any, rate_0: Any
) -> Any:
    """Steps 1 to 4 for one row: β, λ, the PI's state and w; known is 0, 1, or 2 if active."""
    x = tail + at.SCALARS
    m = tail + at.METRICS
    beta, rate, error, measured = beta_0, rate_0, ZERO, ZERO
    if known > 1:
        measured, rate_1 = tightened(cfg, beta_0, rate_0, buffer[x + at.U_PREV])
        softmax_route(buffer, region, tail, blocks, measured)
        gain = (rate_1 * measured) * keep_norms(buffer, region, tail, blocks)
        error, integral, u, beta, rate = pi_update(
            cfg, gain, beta_0, rate_0, buffer[x + at.INTEGRAL]
        )
        buffer[x + at.INTEGRAL] = integral
        buffer[x + at.U_PREV] = u
    # Where β is the one that was measured under, w and its norms are there already.
    buffer[x + at.NORMS_KNOWN] = ONE if beta == measured else ZERO
    if beta != measured:
        softmax_route(buffer, region, tail, blocks, beta)
    buffer[m + at.BETA] = beta
    buffer[m + at.LAMBDA] = rate
    buffer[m + at.PI_ERROR] = error


@inlined
def guard(cfg: Any, buffer: Any, region: Any, tail: Any, blocks: Any, known: Any) -> Any:
    """Step 5: `guard.guard_step`; a held row gets β_min, λ_min and w anew."""
    x = tail + at.SCALARS
    m = tail + at.METRICS
    seen = buffer[x + at.SEEN] != ZERO
    spike, held, apart = ZERO, ZERO, NAN
    if seen:
        apart = distance(buffer, region + at.W * 8 * blocks, region + at.W_HAT * 8 * blocks, blocks)
    if known > 0:
        if buffer[x + at.HOLD_LEFT] > ZERO:
            buffer[x + at.HOLD_LEFT] -= ONE
            held = ONE
            if buffer[m + at.BETA] != cfg[BETA_MIN]:
                buffer[m + at.BETA] = cfg[BETA_MIN]
                buffer[x + at.NORMS_KNOWN] = ZERO
                softmax_route(buffer, region, tail, blocks, cfg[BETA_MIN])
            buffer[m + at.LAMBDA] = cfg[LAMBDA_MIN]
        elif seen:
            if apart > cfg[SPIKE_DISTANCE]:
                spike = ONE
                buffer[x + at.SPIKE_RUN] += ONE
            else:
                buffer[x + at.SPIKE_RUN] = ZERO
            if buffer[x + at.SPIKE_RUN] >= cfg[SPIKE_COUNT]:
                buffer[x + at.HOLD_LEFT] = cfg[HOLD_TICKS]
                buffer[x + at.SPIKE_RUN] = ZERO
    buffer[m + at.DISTANCE] = apart
    buffer[m + at.SPIKE] = spike
    buffer[m + at.HELD] = held


@inlined
def settle_winner(cfg: Any, buffer: Any, w_hat: Any, blocks: Any, top: Any, old: Any) -> Any:
    """`hysteresis.standing_winner`: (it, the argmax of ŵ); old < 0 on the first token."""
    new = first_index_of(buffer, w_hat, blocks, top)
    if old < ZERO or new == old or cfg[HYSTERESIS] == ZERO:
        return new, new
    standing = buffer[w_hat + np.int64(old)]
    tiny = np.float32(1.1754944e-38)
    lead = log1(max(top, tiny)) - log1(max(standing, tiny))
    return (new if lead >= cfg[HYSTERESIS] else old), new
