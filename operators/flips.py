"""How near a route is to another choice: the margin at the top-k edge and the flip distance."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from routekeel.operators.arithmetic import F32, ZERO, f32

Order = npt.NDArray[np.intp]


def ranked(x: F32) -> Order:
    """Experts from the largest value to the smallest, equals by index; f32[..., E] → [..., E]."""
    return np.argsort(-x, axis=-1, kind="stable")


def margin(z: F32, order: Order, k: int) -> F32:
    """z_(k) − z_(k+1) in logits, ≥ 0, f32[...]; NaN where k ≥ E (all experts are chosen).

    >>> z = np.array([[3.0, 1.0, 0.5]], np.float32)
    >>> margin(z, ranked(z), 1).tolist(), margin(z, ranked(z), 3).tolist()
    ([2.0], [nan])
    """
    if k >= z.shape[-1]:
        return np.full(z.shape[:-1], np.nan, dtype=f32)
    edge = np.take_along_axis(z, order[..., k - 1 : k + 1], axis=-1)
    return np.asarray(edge[..., 0] - edge[..., 1], dtype=f32)


def flip_distance(edge_margin: np.float32, expert_distance: np.float32) -> np.float32:
    """margin / ‖W_k − W_{k+1}‖, f32[...]: how far the hidden state must move, at least, to change the top k.

    In units of the hidden state, ≥ 0; NaN where W is unknown or the two experts' rows are equal.

    >>> float(flip_distance(np.float32(2), np.float32(4)))
    0.5
    """
    return f32(edge_margin / expert_distance) if expert_distance > ZERO else f32(np.nan)
