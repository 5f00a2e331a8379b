"""From ambiguity to sharpness and inertia: β and λ, open loop, and their tightening by the PI."""

from __future__ import annotations

import numpy as np

from routekeel.operators.arithmetic import F32, ONE, ZERO, clip32, exp32, f32
from routekeel.operators.config import RouterConfig


def schedule(config: RouterConfig, a_star: F32) -> tuple[F32, F32]:
    """(β0, λ0): linear in C_s = clip(1 − A*/knee, 0, 1) between the limits.

    a_star: f32[...] in [0, 1]. β0 in 1/logit within [β_min, β_max], λ0 within [λ_min, λ_max].
    Where A* is unknown control is neutral, β = λ = 1: NaN gives 1.

    >>> from routekeel.operators.config import DEFAULT
    >>> [round(float(x), 4) for x in schedule(DEFAULT, np.float32(0.5))]
    [1.25, 0.5]
    """
    known = ~np.isnan(a_star)
    held = np.where(known, a_star, ZERO).astype(f32, copy=False)
    c = clip32(ONE - held / f32(config.schedule_knee), ZERO, ONE)
    beta_min, beta_max = f32(config.beta_min), f32(config.beta_max)
    lambda_min, lambda_max = f32(config.lambda_min), f32(config.lambda_max)
    beta = beta_min + (beta_max - beta_min) * c
    rate = lambda_min + (lambda_max - lambda_min) * c
    return np.where(known, beta, ONE).astype(f32), np.where(known, rate, ONE).astype(f32)


def tightened(config: RouterConfig, beta_0: F32, rate_0: F32, u: F32) -> tuple[F32, F32]:
    """(β, λ) = clip(β0 e^−u), clip(λ0 e^−u), float32[n] each, under the PI output u; u > 0 tightens."""
    factor = exp32(-u)
    # e^88·β0 may be infinite; the upper limit then holds it.
    with np.errstate(over="ignore"):
        beta, rate = beta_0 * factor, rate_0 * factor
    return (
        clip32(beta, f32(config.beta_min), f32(config.beta_max)),
        clip32(rate, f32(config.lambda_min), f32(config.lambda_max)),
    )
