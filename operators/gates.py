"""The gate of a router: softmax of its logits, and the logits that stand for a given route.

softmax(ln ŵ) = ŵ exactly, so a worker applies a controlled route by replacing the logits before
any top-k kernel. That holds for softmax routers only.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from routekeel.operators.arithmetic import (
    EXP_MIN,
    EXP_OF_0,
    F32,
    ONE,
    ZERO,
    exp32,
    f32,
    lane_sum,
    log32,
)

# The smallest normal float32: an expert that was flushed to weight 0 keeps a finite logit.
WEIGHT_MIN: Final = f32(1.1754944e-38)


def softmax(z: F32, beta: F32 | np.float32 = ONE) -> tuple[F32, F32, F32]:
    """(w, m, s): w = softmax(β z) f32[..., E], and with x = β(z − max z): m = Σ e^x, s = Σ x e^x.

    z: f32[..., E] finite logits; beta: f32[...] > 0, 1/logit. w ∈ [0, 1] sums to 1; weights below
    e^−87 of the largest are 0. m ∈ [1, E], s ≤ 0 (in nats, see `entropy.route_entropy`).
    Adding a constant to z changes nothing. NaN or infinite logits are the caller's to reject.

    >>> softmax(np.zeros((1, 4), np.float32))[0].tolist()
    [[0.25, 0.25, 0.25, 0.25]]
    """
    x = (z - z.max(axis=-1)[..., None]) * np.asarray(beta, dtype=f32)[..., None]
    e = exp32(x)
    mass = lane_sum(e)
    moment = lane_sum(e * np.where(x > EXP_MIN, x, EXP_OF_0))
    return e * (ONE / mass)[..., None], mass, moment


def route_logits(w_hat: F32) -> F32:
    """z′ = ln ŵ, f32[..., E] in nats, in [−87.4, 0]: softmax(z′) = ŵ.

    A weight of 0 becomes the logit of the smallest normal float32, so that z′ stays finite.

    >>> route_logits(np.array([1.0, 0.0], np.float32)).round(2).tolist()
    [0.0, -87.33999633789062]
    """
    held = np.where(w_hat > WEIGHT_MIN, w_hat, WEIGHT_MIN)
    z = log32(held.astype(f32, copy=False))
    return np.where(z < ZERO, z, ZERO).astype(f32, copy=False)
