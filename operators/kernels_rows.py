"""One row (token × layer), compiled: the baseline first, then control and its metrics.

The baseline (β = λ = 1) is always computed: it is the zero-effect shadow that control is judged
against, and its entropy is a component of A*.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from routekeel.operators import kernels_layout as at
from routekeel.operators.kernels_control import (
    distance,
    first_index_of,
    move,
    settle_winner,
)
from routekeel.operators.kernels_hidden import expert_distance, hidden_norm
from routekeel.operators.kernels_lanes import (
    compiled,
    inlined,
    load,
    splat,
    sqrt8,
    store,
    sum_lanes,
    where_equal,
)
from routekeel.operators.kernels_math import (
    copy_padded,
    covariance_norms,
    log1,
    max_of,
    softmax_into,
)
from routekeel.operators.kernels_topk import edge_experts
from routekeel.operators.sensitivity import SECANT_MIN

ZERO, ONE = np.float32(0), np.float32(1)
NAN = np.float32(np.nan)
LOWEST = np.float32(-np.inf)


@inlined
def base_row(
    cfg: Any, buffer: Any, region: Any, tail: Any, logits: Any, row: Any, E: Any, blocks: Any
) -> Any:
    """Reads a row of logits; its softmax, H_route and R_H. False where a logit is not finite."""
    m = tail + at.METRICS
    x = tail + at.SCALARS
    z = region + at.Z * 8 * blocks
    if not copy_padded(logits, row * E, buffer, z, E, blocks, LOWEST):
        return False
    z_max = max_of(buffer, z, blocks)
    w = region + at.W_BASE * 8 * blocks
    top, mass, moment = softmax_into(buffer, z, w, blocks, z_max, ONE)
    entropy = log1(mass) - moment / mass
    entropy = entropy if entropy > ZERO else ZERO
    buffer[x + at.Z_MAX] = z_max
    buffer[x + at.TOP_BASE] = top
    buffer[m + at.ROUTE_ENTROPY] = entropy
    buffer[m + at.RELATIVE_ENTROPY] = entropy / cfg[at.LN_EXPERTS] if E > 1 else NAN
    return True


@inlined
def base_metrics(buffer: Any, region: Any, tail: Any, blocks: Any) -> Any:
    """Metrics of the baseline against the previous applied row; keeps ‖Δz‖."""
    m = tail + at.METRICS
    x = tail + at.SCALARS
    size = 8 * blocks
    z, w = region + at.Z * size, region + at.W_BASE * size
    w_prev, z_prev = region + at.W_BASE_PREV * size, region + at.Z_PREV * size
    top = buffer[x + at.TOP_BASE]
    two, frobenius, square = covariance_norms(buffer, w, blocks, top)
    buffer[m + at.G_BASE] = two
    buffer[m + at.GRAD_NORM_BASE] = frobenius
    buffer[m + at.PARTICIPATION_BASE] = ONE / square
    buffer[m + at.VERTEX_DISTANCE_BASE] = ONE - top
    winner = first_index_of(buffer, z, blocks, buffer[x + at.Z_MAX])
    buffer[x + at.WINNER_BASE] = winner
    if buffer[x + at.SEEN] == ZERO:
        buffer[m + at.G_SECANT_BASE] = NAN
        buffer[m + at.SELF_SIMILARITY_BASE] = NAN
        buffer[m + at.FLIP_BASE] = NAN
        buffer[x + at.LOGIT_STEP] = NAN
        return
    step_2 = splat(ZERO)
    logit_step_2 = splat(ZERO)
    alike = splat(ZERO)
    for block in range(blocks):
        now, before = load(buffer, w + 8 * block), load(buffer, w_prev + 8 * block)
        z_now, z_before = load(buffer, z + 8 * block), load(buffer, z_prev + 8 * block)
        # Equal values differ by 0, which also settles the padding, −∞ in both.
        logit_step = where_equal(z_now, z_before, splat(ZERO), z_now - z_before)
        step = now - before
        step_2 = step_2 + step * step
        logit_step_2 = logit_step_2 + logit_step * logit_step
        alike = alike + sqrt8(now * before)
    logit_step_norm = np.sqrt(sum_lanes(logit_step_2))
    buffer[m + at.G_SECANT_BASE] = secant(np.sqrt(sum_lanes(step_2)), logit_step_norm)
    buffer[m + at.SELF_SIMILARITY_BASE] = sum_lanes(alike)
    buffer[m + at.FLIP_BASE] = ONE if winner != buffer[x + at.WINNER_BASE_PREV] else ZERO
    buffer[x + at.LOGIT_STEP] = logit_step_norm


@inlined
def secant(step: Any, logit_step: Any) -> Any:
    """`sensitivity.secant`."""
    return step / logit_step if logit_step >= SECANT_MIN else NAN


@inlined
def move_row(cfg: Any, buffer: Any, region: Any, tail: Any, shared: Any, blocks: Any) -> Any:
    """Steps 6 and 7 after control: ŵ, its metrics, the winner; returns where the emitted route is.

    Raw norms of Σ(w) stand where their gains will be (see keep_norms).
    """
    m = tail + at.METRICS
    x = tail + at.SCALARS
    size = 8 * blocks
    w_hat, w_base = region + at.W_HAT * size, region + at.W_BASE * size
    seen = buffer[x + at.SEEN] != ZERO
    effective = buffer[m + at.LAMBDA] if seen else ONE
    top, square, step, alike, shift = move(
        buffer, region + at.W * size, w_hat, w_base, blocks, effective
    )
    old = buffer[x + at.WINNER] if seen else -ONE
    winner, own = settle_winner(cfg, buffer, w_hat, blocks, top, old)
    emitted = w_hat
    if own != winner:
        emitted = exchanged(buffer, w_hat, shared + at.ROUTE * size, blocks, own, winner)
        shift = distance(buffer, emitted, w_base, blocks)
    gain = effective * buffer[m + at.BETA]
    buffer[m + at.LAMBDA_EFFECTIVE] = effective
    buffer[m + at.PARTICIPATION] = ONE / square
    buffer[m + at.VERTEX_DISTANCE] = ONE - top
    buffer[m + at.GRAD_NORM] = gain * buffer[m + at.GRAD_NORM]
    buffer[m + at.G_CONTROLLED] = gain * buffer[m + at.G_CONTROLLED]
    buffer[m + at.G_SECANT_CONTROLLED] = secant(step, buffer[x + at.LOGIT_STEP])
    buffer[m + at.SELF_SIMILARITY] = alike if seen else NAN
    buffer[m + at.DELTA_W_HAT] = step if seen else NAN
    buffer[m + at.ROUTE_SHIFT] = shift
    buffer[m + at.FLIP_CONTROLLED] = (ONE if winner != old else ZERO) if seen else NAN
    for scalar in range(4):
        buffer[m + at.PI_INTEGRAL + scalar] = buffer[x + scalar]
    buffer[x + at.SEEN] = ONE
    buffer[x + at.WINNER] = winner
    buffer[x + at.WINNER_BASE_PREV] = buffer[x + at.WINNER_BASE]
    for block in range(blocks):
        here = 8 * block
        store(buffer, region + at.W_BASE_PREV * size + here, load(buffer, w_base + here))
        z = load(buffer, region + at.Z * size + here)
        store(buffer, region + at.Z_PREV * size + here, z)
    return emitted


@compiled
def exchanged(buffer: Any, w_hat: Any, route: Any, blocks: Any, own: Any, winner: Any) -> Any:
    """`hysteresis.emitted_route`: a copy of ŵ with two experts exchanged."""
    for block in range(blocks):
        store(buffer, route + 8 * block, load(buffer, w_hat + 8 * block))
    buffer[route + np.int64(winner)] = buffer[w_hat + np.int64(own)]
    buffer[route + np.int64(own)] = buffer[w_hat + np.int64(winner)]
    return route


@compiled
def hidden_metrics(
    buffer: Any, region: Any, tail: Any, shared: Any, blocks: Any, E: Any, k: Any,
    gram: Any, gram_at: Any,
) -> Any:  # fmt: skip
    """G in hidden space and the flip distance, where W Wᵀ is known."""
    m = tail + at.METRICS
    size = 8 * blocks
    buffer[m + at.FLIP_DISTANCE] = NAN
    buffer[m + at.G_HIDDEN_BASE] = NAN
    buffer[m + at.G_HIDDEN_CONTROLLED] = NAN
    if gram_at < 0:
        return
    if k < E:
        one, other = edge_experts(buffer, region + at.Z * size, blocks, E, k)
        apart = expert_distance(gram, gram_at, E, one, other)
        buffer[m + at.FLIP_DISTANCE] = buffer[m + at.MARGIN] / apart if apart > ZERO else NAN
    gain = buffer[m + at.LAMBDA_EFFECTIVE] * buffer[m + at.BETA]
    base = hidden_norm(buffer, region + at.W_BASE * size, gram, gram_at, shared, blocks, E)
    buffer[m + at.G_HIDDEN_BASE] = base
    here = hidden_norm(buffer, region + at.W * size, gram, gram_at, shared, blocks, E)
    buffer[m + at.G_HIDDEN_CONTROLLED] = gain * here
