"""Winner hysteresis, off by default: a new top expert must lead by some logits to take over.

Only the emitted route is changed, by exchanging two weights; the moving average itself is not, so
that a lead can build up.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from routekeel.operators.arithmetic import F32, ZERO, f32, log32
from routekeel.operators.gates import WEIGHT_MIN

Index = npt.NDArray[np.int64]


def standing_winner(w_hat: F32, old: Index, hysteresis: float) -> Index:
    """The winner of routes ŵ f32[n, E] after a dead band of `hysteresis` logits; i64[n].

    old: the winner so far, −1 on the first token. With j = argmax ŵ, the old winner k stays while
    ln ŵ_j − ln ŵ_k < hysteresis. 0 = off: the argmax. Of equals the lower index wins.

    >>> route = np.array([[0.45, 0.55]], np.float32)
    >>> [standing_winner(route, np.array([0]), band).tolist() for band in (0.3, 0.0)]
    [[0], [1]]
    """
    new: Index = np.asarray(w_hat.argmax(axis=-1), dtype=np.int64)
    if hysteresis == 0:
        return new
    rows = np.arange(w_hat.shape[0])
    top = np.maximum(w_hat[rows, new], WEIGHT_MIN)
    standing = np.maximum(w_hat[rows, np.maximum(old, 0)], WEIGHT_MIN)
    lead = log32(top) - log32(standing)
    return np.where((old < 0) | (lead >= f32(hysteresis)), new, old)


def emitted_route(w_hat: F32, winner: Index) -> F32:
    """ŵ [n, E] with its largest weight and that of the standing winner [n] exchanged.

    ŵ ≥ 0 sums to 1 as before, and its spread is kept.
    """
    rows = np.arange(w_hat.shape[0])
    own = w_hat.argmax(axis=-1)
    emitted = w_hat.copy()
    emitted[rows, own] = w_hat[rows, winner]
    emitted[rows, winner] = w_hat[rows, own]
    return emitted


def flipped(winner: Index, old: Index) -> F32:
    """float32[n] in {0, 1}: whether the winner changed; NaN on the first token (old = −1)."""
    changed = np.where(winner != old, f32(1), ZERO)
    return np.where(old < 0, f32(np.nan), changed).astype(f32)
