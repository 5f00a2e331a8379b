"""Load per expert: how often each is among the top k, and how uneven that is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from routekeel.operators.arithmetic import F32, ZERO, f32, lane_sum

Counts = npt.NDArray[np.int32]


def top_k_counts(order: npt.NDArray[np.intp], k: int) -> Counts:
    """i32[E]: over rows of experts ranked [n, E], how often each is among the first k."""
    experts = order.shape[-1]
    return np.bincount(order[..., :k].ravel(), minlength=experts).astype(np.int32)


def imbalance(counts: Counts) -> tuple[F32, F32]:
    """(max/mean, σ/mean) of counts i32[n, E], each f32[n]; 1 and 0 are perfect balance.

    max/mean ∈ [1, E], the coefficient of variation ∈ [0, √(E − 1)]; NaN where nothing was routed.

    >>> [float(x[0]) for x in imbalance(np.array([[3, 1]], np.int32))]
    [1.5, 0.5]
    """
    loads = counts.astype(f32)
    experts = f32(counts.shape[-1])
    some = loads.max(axis=-1) > ZERO
    mean = np.where(some, lane_sum(loads) / experts, f32(1))
    spread = loads - mean[..., None]
    variation = np.sqrt(lane_sum(spread * spread) / experts) / mean
    over_mean = loads.max(axis=-1) / mean
    unknown = f32(np.nan)
    return (
        np.where(some, over_mean, unknown).astype(f32),
        np.where(some, variation, unknown).astype(f32),
    )
