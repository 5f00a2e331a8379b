"""A*, the ambiguity of a token's text, from whichever components are known.

Unknown stays unknown: a component that is NaN is left out, and without any A* is NaN and control
is neutral. A_exogenous leaves out the routing component, which is a function of the same route as
G: claims that ambiguity drives G must use that one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from routekeel.operators.arithmetic import F32, ONE, ZERO, clip32, f32
from routekeel.operators.columns import AMBIGUITY_BITS
from routekeel.operators.config import RouterConfig

SUPPLIED = ("predictive", "paraphrase", "specification")


@dataclass(frozen=True, eq=False)
class Ambiguity:
    """A* and A_exogenous f32[T] in [0, 1] or NaN, their components f32[T, 4] (predictive,
    paraphrase, specification, routing) and the bit mask u8[T] of those A* was made of."""

    a_star: F32
    a_exogenous: F32
    components: F32
    mask: np.ndarray[tuple[int], np.dtype[np.uint8]]


def combine(config: RouterConfig, supplied: F32, routing: F32) -> Ambiguity:
    """A* = Σ α_i a_i / Σ α_i over the components present with α_i > 0.

    supplied: f32[T, 3] predictive, paraphrase, specification, NaN = absent; held to [0, 1].
    routing: f32[T], mean of R_H over the chunk's layers, NaN = unknown.

    >>> from routekeel.operators.config import DEFAULT
    >>> one = combine(DEFAULT, np.array([[0.5, np.nan, 1.0]], np.float32), np.zeros(1, np.float32))
    >>> one.a_star.tolist(), one.mask.tolist()
    ([0.75], [5])
    """
    tokens = supplied.shape[0]
    total = np.zeros(tokens, dtype=f32)
    weights = np.zeros(tokens, dtype=f32)
    mask = np.zeros(tokens, dtype=np.uint8)
    components = np.full((tokens, 4), np.nan, dtype=f32)
    components[:, 3] = routing
    a_exogenous = total
    for place, name in enumerate((*SUPPLIED, "routing")):
        value = supplied[:, place] if place < 3 else routing
        present = ~np.isnan(value)
        value = clip32(np.where(present, value, ZERO), ZERO, ONE)
        if place < 3:
            components[:, place] = np.where(present, value, f32(np.nan))
        else:
            a_exogenous = _ratio(total, weights)
        alpha = f32(getattr(config, f"alpha_{name}"))
        if alpha > 0:
            total = np.where(present, total + alpha * value, total)
            weights = np.where(present, weights + alpha, weights)
            mask |= np.where(present, np.uint8(AMBIGUITY_BITS[name]), np.uint8(0))
    return Ambiguity(_ratio(total, weights), a_exogenous, components, mask)


def _ratio(total: F32, weights: F32) -> F32:
    known = weights > ZERO
    return np.where(known, total / np.where(known, weights, ONE), f32(np.nan)).astype(f32)


def predictive(token_entropy: F32, vocabulary: int) -> F32:
    """Token entropy (nats) / ln vocabulary, f32[...] in [0, 1]; NaN stays NaN.

    Raises ValueError for a vocabulary below 2, where entropy has no scale.

    >>> float(predictive(np.float32(np.log(4)), 16))
    0.5
    """
    if vocabulary < 2:
        raise ValueError(f"vocabulary must be >= 2, got {vocabulary}")
    share = np.asarray(token_entropy, dtype=f32) / f32(np.log(vocabulary))
    return np.asarray(np.clip(share, ZERO, ONE), dtype=f32)


def clarity(a_star: F32) -> F32:
    """C = 1 − A*, f32[...] in [0, 1]; NaN where A* is."""
    return np.asarray(ONE - a_star, dtype=f32)
