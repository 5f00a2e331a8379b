"""G, the sensitivity of a route to its logits: norms of λβΣ(w), Σ(w) = diag(w) − w wᵀ.

G = ‖Δw‖/‖Δx‖ is a Lipschitz constant of the router; here it is the exact derivative of this step's
map z → ŵ, its largest singular value, in closed or nearly closed form.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from routekeel.operators.arithmetic import F32, HALF, ONE, ZERO, f32, lane_sum

# Newton steps on the concave form below; two leave 3e-8 relative over 10^4 adversarial routes.
NEWTON_STEPS: Final = 2
# All weight on one expert: below this mass outside it, ‖Σ‖₂ is 0 for every purpose.
NEGLIGIBLE: Final = f32(1e-20)
# ‖Δz‖ below which a secant is not defined.
SECANT_MIN: Final = f32(1e-6)


def covariance_norms(w: F32) -> tuple[F32, F32, F32]:
    """(‖Σ(w)‖₂, ‖Σ(w)‖_F, Σ w²) of routes w f32[..., E], each f32[...].

    ‖Σ‖₂ ∈ [0, ½] is the largest root μ of Σ_i w_i²/(w_i − μ) = 1. As Σ w = 1 that is
    Σ_i w_i/(w_i − μ) = 0; with the largest weight w₁ alone on one side and μ = w₂ + δ,

        1/k(δ) = (w₁ − w₂ − δ)/w₁,   k(δ) = Σ_{i≥2} w_i/(δ + w₂ − w_i),

    whose left side is concave and increasing, so Newton's method cannot run away from the bracket
    w₂(w₁ − w₂)/(w₁ + w₂) ≤ δ ≤ w₁(1 − w₁ + w₂) − w₂ (exact at E = 2: μ = 2w₁w₂/(w₁ + w₂)).
    ‖Σ‖_F² = Σw² − 2Σw³ + (Σw²)², summed without the largest weight so that nothing cancels.
    Ties for the largest weight: μ = w₁. One expert, or all weight on one: 0. NaN gives NaN.
    Source: Golub 1973, "Some modified matrix eigenvalue problems" (the secular equation).

    >>> two, frobenius, _ = covariance_norms(np.array([[0.25, 0.75]], np.float32))
    >>> round(float(two[0]), 6), round(float(frobenius[0]), 6)
    (0.375, 0.375)
    """
    top = w.max(axis=-1)
    is_top = w == top[..., None]
    v = np.where(is_top, ZERO, w)
    more = lane_sum(is_top.astype(f32)) - ONE
    top_2 = top * top
    square = v * v
    s = lane_sum(v) + more * top
    r_2 = lane_sum(square) + more * top_2
    r_3 = lane_sum(square * v) + more * (top_2 * top)
    squared = (top_2 * (s * s + r_2) + r_2 * ((ONE + top_2) + r_2)) - (r_3 + r_3)
    frobenius = np.sqrt(np.maximum(squared, ZERO))
    w_2 = v.max(axis=-1)
    gap = top - w_2
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        low = (w_2 * gap) / (top + w_2)
        high = np.maximum(low, np.minimum(gap, top * (s + w_2) - w_2))
        inverse_top = ONE / top
        offset = HALF * (low + high)
        for _ in range(NEWTON_STEPS):
            r = ONE / (offset[..., None] + (w_2[..., None] - v))
            t = v * r
            k = lane_sum(t)
            off = ONE - ((gap - offset) * inverse_top) * k
            offset = offset - (k * off) / (lane_sum(t * r) + inverse_top * (k * k))
            offset = np.maximum(low, np.minimum(gap, offset))
    two = np.where(more > ZERO, top, np.where(s < NEGLIGIBLE, s + w_2, w_2 + offset))
    return two.astype(f32, copy=False), frobenius, top_2 + r_2


def gain(norm: F32, beta: F32, rate: F32) -> F32:
    """λβ‖Σ‖: G controlled from ‖Σ‖₂, ‖∇w‖ from ‖Σ‖_F; f32[...], unit 1/logit, in [0, λβ/2].

    G base is the norm itself (λ = β = 1).

    >>> float(gain(np.float32(0.5), np.float32(0.5), np.float32(0.25)))
    0.0625
    """
    return np.asarray((rate * beta) * norm, dtype=f32)


def secant(step: F32, logit_step: F32) -> F32:
    """float32[n], ‖w_t − w_{t−1}‖/‖z_t − z_{t−1}‖; NaN where ‖Δz‖ < 1e-6 or either is NaN (first token)."""
    defined = logit_step >= SECANT_MIN
    ratio = step / np.where(defined, logit_step, ONE)
    return np.where(defined, ratio, f32(np.nan)).astype(f32, copy=False)
