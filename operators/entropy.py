"""How spread a route is: entropy, participation ratio, distance to the nearest vertex."""

from __future__ import annotations

import numpy as np

from routekeel.operators.arithmetic import F32, ONE, ZERO, f32, log32


def route_entropy(mass: F32, moment: F32) -> F32:
    """H_route = −Σ w ln w = ln m − s/m in nats, in [0, ln E], from the sums that softmax gives.

    f32[...] → f32[...]; 0 for one expert or for all weight on one.

    >>> from routekeel.operators.gates import softmax
    >>> _, mass, moment = softmax(np.zeros((1, 4), np.float32))
    >>> round(float(route_entropy(mass, moment)[0]), 5)
    1.38629
    """
    entropy = log32(mass) - moment / mass
    return np.where(entropy > ZERO, entropy, ZERO).astype(f32, copy=False)


def relative_entropy(entropy: F32, experts: int) -> F32:
    """R_H = H/ln E, f32[...] in [0, 1]; NaN for one expert, where no choice exists.

    >>> float(relative_entropy(np.float32(0), 1))
    nan
    """
    if experts == 1:
        return np.full_like(entropy, np.nan, dtype=f32)
    return np.asarray(entropy / log32(f32(experts)), dtype=f32)


def participation(square: F32) -> F32:
    """R_PR = 1/Σw², the effective number of experts, in [1, E], from Σw²."""
    return np.asarray(ONE / square, dtype=f32)


def vertex_distance(w: F32) -> F32:
    """1 − max w over the last axis, in [0, 1 − 1/E]: 0 where one expert has all the weight.

    >>> vertex_distance(np.array([[0.25, 0.75]], np.float32)).tolist()
    [0.25]
    """
    return np.asarray(ONE - w.max(axis=-1), dtype=f32)
