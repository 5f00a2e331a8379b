"""‖Σ(w) W‖₂ in hidden space, compiled: a few Lanczos steps on Σ K Σ with K = W Wᵀ.

The twin of `hidden.covariance_norm`; it costs steps·E² per row, so only rows whose router matrix
is known take this way.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from routekeel.operators import kernels_layout as at
from routekeel.operators.hidden import BISECTIONS, LANCZOS_STEPS, START_MODULUS, START_STEP
from routekeel.operators.kernels_lanes import compiled, load, splat, store, sum_lanes

ZERO, ONE, HALF, TWO = np.float32(0), np.float32(1), np.float32(0.5), np.float32(2)
NAN = np.float32(np.nan)
TINY = np.float32(1e-30)
SETTLED = np.float32(1e-6)


@compiled
def dot(buffer: Any, x: Any, y: Any, blocks: Any) -> Any:
    """Σ x y."""
    total = splat(ZERO)
    for block in range(blocks):
        total = total + load(buffer, x + 8 * block) * load(buffer, y + 8 * block)
    return sum_lanes(total)


@compiled
def times_covariance(buffer: Any, w: Any, x: Any, blocks: Any) -> Any:
    """x ← Σ(w) x = w∘x − w (w·x)."""
    centre = dot(buffer, w, x, blocks)
    for block in range(blocks):
        value = load(buffer, w + 8 * block) * (load(buffer, x + 8 * block) - centre)
        store(buffer, x + 8 * block, value)


@compiled
def times_gram(
    buffer: Any, gram: Any, start: Any, x: Any, to: Any, blocks: Any, E: Any
) -> Any:  # fmt: skip
    """to ← K x, column by column; padding of `to` is 0."""
    for block in range(blocks):
        store(buffer, to + 8 * block, splat(ZERO))
    whole = E // 8
    for row in range(E):
        scale = buffer[x + row]
        place = start + row * E
        for block in range(whole):
            value = load(gram, place + 8 * block) * scale
            store(buffer, to + 8 * block, load(buffer, to + 8 * block) + value)
        for index in range(8 * whole, E):
            buffer[to + index] = buffer[to + index] + gram[place + index] * scale


@compiled
def top_of_tridiagonal(diagonal: Any, beside: Any, length: Any) -> Any:
    """Largest eigenvalue by bisection; `beside` holds squares of the off-diagonal."""
    low, high = ZERO, ZERO
    previous = ZERO
    for index in range(length):
        after = np.sqrt(beside[index]) if index + 1 < length else ZERO
        low = max(low, diagonal[index])
        high = max(high, (diagonal[index] + previous) + after)
        previous = after
    for _ in range(BISECTIONS):
        middle = HALF * (low + high)
        above = True
        pivot = ONE
        for index in range(length):
            across = beside[index - 1] / pivot if index > 0 else ZERO
            pivot = (middle - diagonal[index]) - across
            if not pivot > ZERO:
                above = False
                break
        if above:
            high = middle
        else:
            low = middle
    return HALF * (low + high)


@compiled
def hidden_norm(
    buffer: Any, w: Any, gram: Any, start: Any, shared: Any, b: Any, E: Any
) -> Any:  # fmt: skip
    """`hidden.covariance_norm` of one route, in the shared part of the buffer."""
    size = 8 * b
    v, v_prev = shared + at.KRYLOV * size, shared + at.KRYLOV_PREV * size
    y, t = shared + at.PRODUCT * size, shared + at.PRODUCT_2 * size
    free = shared + at.SHARED * size + at.LEDGER_TRIDIAGONAL
    diagonal = buffer[free : free + LANCZOS_STEPS]
    beside = buffer[free + LANCZOS_STEPS : free + 2 * LANCZOS_STEPS]
    for index in range(8 * b):
        turn = np.float32((index + 1) * START_STEP % START_MODULUS)
        buffer[v + index] = turn / np.float32(START_MODULUS) - HALF
        buffer[v_prev + index] = ZERO
    times_covariance(buffer, w, v, b)
    size = np.sqrt(dot(buffer, v, v, b))
    length = 0
    coupling = ZERO
    for step in range(min(LANCZOS_STEPS, E)):
        if not size > TINY:
            break
        inverse = ONE / size
        for block in range(b):
            value = load(buffer, v + 8 * block) * inverse
            store(buffer, v + 8 * block, value)
            store(buffer, y + 8 * block, value)
        times_covariance(buffer, w, y, b)
        times_gram(buffer, gram, start, y, t, b, E)
        times_covariance(buffer, w, t, b)
        diagonal[step] = dot(buffer, v, t, b)
        length = step + 1
        for block in range(b):
            at_v = load(buffer, v + 8 * block)
            left = (load(buffer, t + 8 * block) - at_v * diagonal[step]) - load(
                buffer, v_prev + 8 * block
            ) * coupling
            store(buffer, v_prev + 8 * block, at_v)
            store(buffer, v + 8 * block, left)
        beside[step] = dot(buffer, v, v, b)
        size = np.sqrt(beside[step])
        coupling = size
        if size <= SETTLED * diagonal[0]:
            break
    return np.sqrt(top_of_tridiagonal(diagonal, beside, length))


@compiled
def expert_distance(gram: Any, start: Any, E: Any, one: Any, other: Any) -> Any:
    """‖W_i − W_j‖ from K."""
    i, j = np.int64(one), np.int64(other)
    both = gram[start + i * E + i] + gram[start + j * E + j]
    return np.sqrt(max(both - TWO * gram[start + i * E + j], ZERO))
