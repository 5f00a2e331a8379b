"""The controlled route: an exponential moving average of routes, and how it moves."""

from __future__ import annotations

import numpy as np

from routekeel.operators.arithmetic import F32, ONE, f32, lane_sum, norm32


def move(w_hat_prev: F32, w: F32, rate: F32) -> F32:
    """ŵ = (1 − λ) ŵ_prev + λ w, divided by its sum; f32[..., E] with λ = rate f32[...] in [0, 1].

    ŵ ≥ 0 sums to 1. On the first token λ_effective = 1 (ŵ_prev of zeros): ŵ = w. λ = 0 keeps
    ŵ_prev up to rounding.

    >>> move(np.array([[1.0, 0.0]], np.float32), np.array([[0.0, 1.0]], np.float32),
    ...      np.array([0.25], np.float32)).tolist()
    [[0.75, 0.25]]
    """
    keep = ONE - rate
    mixed = w_hat_prev * keep[..., None] + w * rate[..., None]
    return np.asarray(mixed / lane_sum(mixed)[..., None], dtype=f32)


def distance(w: F32, other: F32) -> F32:
    """‖w − other‖₂ over the last axis, in [0, √2] for routes: d against ŵ_prev, ‖Δŵ‖."""
    return norm32(w - other)


def self_similarity(w: F32, previous: F32) -> F32:
    """S = Σ √(w_t w_{t−1}), f32[...] in [0, 1]: 1 for equal routes, 0 for disjoint ones.

    Source: Bhattacharyya 1943. The first token has no S (NaN, set by the caller).

    >>> float(self_similarity(np.array([0.5, 0.5], np.float32), np.array([0.5, 0.5], np.float32)))
    1.0
    """
    return lane_sum(np.sqrt(w * previous))
