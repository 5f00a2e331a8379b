"""G and the flip distance in hidden space, for a router whose matrix W [E, d] is known.

Only K = W Wᵀ [E, E] is needed: ‖ΣW‖₂² is the largest eigenvalue of ΣKΣ, and
‖W_i − W_j‖² = K_ii + K_jj − 2K_ij.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from routekeel.operators.arithmetic import F32, HALF, ONE, TWO, ZERO, f32, lane_sum

LANCZOS_STEPS: Final = 16
BISECTIONS: Final = 26
# The start vector is a fixed low-discrepancy sequence: in general position to any eigenvector.
START_STEP: Final = 40503
START_MODULUS: Final = 65536
TINY: Final = f32(1e-30)
SETTLED: Final = f32(1e-6)


def router_gram(W: npt.ArrayLike) -> F32:
    """K = W Wᵀ as f32[E, E] (or [N, E, E] of a stack), in units of W².

    Summed in float64, exactly symmetric.

    >>> router_gram([[1.0, 0.0], [1.0, 1.0]]).tolist()
    [[1.0, 1.0], [1.0, 2.0]]
    """
    matrix = np.asarray(W, dtype=np.float64)
    gram = matrix @ np.swapaxes(matrix, -1, -2)
    return np.ascontiguousarray(HALF * (gram + np.swapaxes(gram, -1, -2)), dtype=f32)


def expert_distance(gram: F32, one: int, other: int) -> np.float32:
    """‖W_one − W_other‖, a scalar ≥ 0, in units of W.

    >>> float(expert_distance(router_gram([[1.0, 0.0], [1.0, 1.0]]), 0, 1))
    1.0
    """
    both = gram[one, one] + gram[other, other]
    return f32(np.sqrt(np.maximum(both - TWO * gram[one, other], ZERO)))


def covariance_norm(w: F32, gram: F32) -> np.float32:
    """‖Σ(w) W‖₂ of one route w f32[E] with K f32[E, E]; ≥ 0, in units of W.

    At most 16 Lanczos steps on ΣKΣ from a fixed start, then the top of the tridiagonal matrix by
    bisection: exact to rounding for E ≤ 16, within 1e-3 relative beyond. All weight on one expert
    gives 0. Times λβ it is G in hidden space: ‖Δw‖/‖Δx‖ for a change Δx of the hidden state.
    Source: Lanczos 1950; Kuczyński and Woźniakowski 1992 (the bound without a gap).
    """
    E = w.shape[0]
    index = np.arange(1, E + 1, dtype=np.int64) * START_STEP % START_MODULUS
    v = _times_covariance(w, index.astype(f32) / f32(START_MODULUS) - HALF)
    v_prev = np.zeros(E, dtype=f32)
    size = f32(np.sqrt(lane_sum(v * v)))
    diagonal: list[np.float32] = []
    beside: list[np.float32] = []
    coupling = ZERO
    for _ in range(min(LANCZOS_STEPS, E)):
        if not size > TINY:
            break
        v = v * (ONE / size)
        t = _times_covariance(w, _times_gram(gram, _times_covariance(w, v)))
        alpha = f32(lane_sum(v * t))
        left = (t - v * alpha) - v_prev * coupling
        v_prev, v = v, left
        squared = f32(lane_sum(v * v))
        size = coupling = f32(np.sqrt(squared))
        diagonal.append(alpha)
        beside.append(squared)
        if size <= SETTLED * diagonal[0]:
            break
    return f32(np.sqrt(_top_of_tridiagonal(diagonal, beside)))


def _times_covariance(w: F32, x: F32) -> F32:
    return np.asarray(w * (x - lane_sum(w * x)), dtype=f32)


def _times_gram(gram: F32, x: F32) -> F32:
    # accumulate adds row after row, in order; a plain sum may not.
    return np.asarray(np.add.accumulate(gram * x[:, None], axis=0)[-1] + ZERO, dtype=f32)


def _top_of_tridiagonal(diagonal: list[np.float32], beside: list[np.float32]) -> np.float32:
    low = high = previous = ZERO
    for index, alpha in enumerate(diagonal):
        after = np.sqrt(beside[index]) if index + 1 < len(diagonal) else ZERO
        low = max(low, alpha)
        high = max(high, (alpha + previous) + after)
        previous = after
    for _ in range(BISECTIONS):
        middle = f32(HALF * (low + high))
        if _above_spectrum(middle, diagonal, beside):
            high = middle
        else:
            low = middle
    return f32(HALF * (low + high))


def _above_spectrum(x: np.float32, diagonal: list[np.float32], beside: list[np.float32]) -> bool:
    pivot = ONE
    for index, alpha in enumerate(diagonal):
        across = beside[index - 1] / pivot if index > 0 else ZERO
        pivot = f32((x - alpha) - across)
        if not pivot > ZERO:
            return False
    return True
