"""The top-k experts of one row on numba's lanes: who is chosen, and how close the edge is.

Only comparisons, so any method gives the same answer: up to eight experts each lane counts who
stands before it; above, the k largest values are found one after the other, eight experts at once.
Of equals the lower index comes first.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from routekeel.operators.kernels_lanes import (
    compiled,
    count_where_greater,
    inlined,
    lane_index,
    load,
    max_lanes,
    splat,
    sum_lanes,
    where_equal,
    where_greater,
)
from routekeel.operators.kernels_math import max_of

ZERO, ONE = np.float32(0), np.float32(1)
NAN = np.float32(np.nan)
LOWEST = np.float32(-np.inf)


@inlined
def count_by_rank(buffer: Any, x: Any, E: Any, k: Any, loads: Any, at: Any) -> Any:
    """Up to eight experts: adds the top k to loads[at:]; returns z_(k) − z_(k+1), NaN if k ≥ E."""
    values = load(buffer, x)
    index = lane_index()
    rank = splat(ZERO)
    for other in range(E):
        value = splat(buffer[x + other])
        before = where_greater(index, splat(np.float32(other)), splat(ONE), splat(ZERO))
        rank = rank + where_greater(value, values, splat(ONE), splat(ZERO))
        rank = rank + where_equal(value, values, before, splat(ZERO))
    count_where_greater(loads, at, splat(np.float32(k)), rank)
    if k >= E:
        return NAN
    value_in = sum_lanes(where_equal(rank, splat(np.float32(k - 1)), values, splat(ZERO)))
    value_out = sum_lanes(where_equal(rank, splat(np.float32(k)), values, splat(ZERO)))
    return value_in - value_out


@compiled
def top_k_edge(buffer: Any, x: Any, blocks: Any, k: Any) -> Any:
    """(z_(k), the largest value below it, how many are above z_(k), how many equal it)."""
    value = max_of(buffer, x, blocks)
    above = np.int64(0)
    while True:
        below = splat(LOWEST)
        equal = splat(ZERO)
        for block in range(blocks):
            here = load(buffer, x + 8 * block)
            smaller = where_greater(splat(value), here, here, splat(LOWEST))
            below = where_greater(smaller, below, smaller, below)
            equal = equal + where_equal(here, splat(value), splat(ONE), splat(ZERO))
        same = np.int64(sum_lanes(equal))
        next_value = max_lanes(below)
        if above + same >= k:
            return value, next_value, above, same
        above += same
        value = next_value


@compiled
def count_by_value(
    buffer: Any, x: Any, blocks: Any, E: Any, k: Any, loads: Any, at: Any
) -> Any:  # fmt: skip
    """Any number of experts: as count_by_rank."""
    value, below, above, same = top_k_edge(buffer, x, blocks, k)
    tied = above + same > k
    threshold = value if tied else below
    for block in range(blocks):
        here = load(buffer, x + 8 * block)
        count_where_greater(loads, at + 8 * block, here, splat(threshold))
    if tied:
        left = k - above
        for expert in range(E):
            if left > 0 and buffer[x + expert] == value:
                loads[at + expert] += np.int32(1)
                left -= 1
    if k >= E:
        return NAN
    return ZERO if tied else value - below


@inlined
def count_top_k(
    buffer: Any, x: Any, blocks: Any, E: Any, k: Any, loads: Any, at: Any
) -> Any:  # fmt: skip
    """Adds one to loads[at:] for each of the top k of E values; returns the margin at the edge."""
    if blocks == 1:
        return count_by_rank(buffer, x, E, k, loads, at)
    return count_by_value(buffer, x, blocks, E, k, loads, at)


@compiled
def nth_index_of(buffer: Any, x: Any, E: Any, value: Any, n: Any) -> Any:
    """The index of the n-th (from 1) expert that has the value."""
    for expert in range(E):
        if buffer[x + expert] == value:
            n -= 1
            if n == 0:
                return expert
    return E - 1


@compiled
def edge_experts(buffer: Any, x: Any, blocks: Any, E: Any, k: Any) -> Any:
    """The experts on both sides of the top-k edge, k < E."""
    value, below, above, same = top_k_edge(buffer, x, blocks, k)
    last = nth_index_of(buffer, x, E, value, k - above)
    if above + same > k:
        return last, nth_index_of(buffer, x, E, value, k - above + 1)
    return last, nth_index_of(buffer, x, E, below, 1)
