"""`python -m tests.bench.exponential`: the kernel's softmax, eight lanes of a polynomial, against a scalar one.

The scalar one is what numba makes of `math.exp` in a loop, with the same results: the weights, and the
sums Σe and Σe·x from which the entropy follows (what the kernel needs of every row, twice). The
values stay in the cache, as those of a batch's piece do in the worker: both are timed, not the memory.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from typing import Any

import numpy as np
from numba import njit

from routekeel.operators.compilation import CompiledUnit, array_in, array_out
from routekeel.operators.kernels_math import max_of, softmax_into

VALUES, CALLS, REPEATS = 2**15, 40, 9
ONE = np.float32(1)


@njit(nogil=True, error_model="numpy")
def scalar(logits: Any, w: Any, sums: Any, E: int) -> None:
    """Row by row, expert by expert."""
    for row in range(logits.shape[0] // E):
        start = row * E
        top = logits[start]
        for index in range(1, E):
            top = max(top, logits[start + index])
        total = moment = np.float32(0)
        for index in range(E):
            x = (logits[start + index] - top) * ONE
            e = np.float32(math.exp(x))
            w[start + index] = e
            total += e
            moment += e * x
        inverse = ONE / total
        for index in range(E):
            w[start + index] *= inverse
        sums[row, 0], sums[row, 1] = total, moment


def _lanes(source_digest: int) -> Any:
    def run(logits: Any, w: Any, sums: Any, E: Any) -> Any:
        if source_digest != 0:
            for row in range(logits.shape[0] // E):
                start = row * E
                top = max_of(w, start, E // 8)
                _, total, moment = softmax_into(w, start, start, E // 8, top, ONE)
                sums[row, 0], sums[row, 1] = total, moment

    return run


def measure() -> dict[str, Any]:
    """Million rows a second of both, by number of experts."""
    from numba import types

    f32 = types.float32
    lanes = CompiledUnit().entry(
        types.void(array_in(f32, 1), array_out(f32, 1), array_out(f32, 2), types.int64), _lanes
    )
    out: dict[str, Any] = {}
    for experts in (8, 64, 128, 256):
        logits = np.random.default_rng(0).normal(scale=3, size=VALUES).astype(np.float32)
        w, sums = logits.copy(), np.empty((VALUES // experts, 2), np.float32)
        rates: dict[str, list[float]] = {"scalar": [], "lanes": []}
        for _ in range(REPEATS):
            for name, function in (("scalar", scalar), ("lanes", lanes)):
                seconds = 0.0
                for _ in range(CALLS):
                    w[:] = logits
                    started = time.perf_counter()
                    function(logits, w, sums, experts)
                    seconds += time.perf_counter() - started
                rates[name].append(CALLS * VALUES / experts / seconds / 1e6)
        median = {name: statistics.median(values[1:]) for name, values in rates.items()}
        out[str(experts)] = {**median, "ratio": median["lanes"] / median["scalar"]}
    return out


def main() -> None:
    """Print the table, or one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.exponential", description=__doc__)
    parser.add_argument("--json", action="store_true")
    found = measure()
    if parser.parse_args().json:
        print(json.dumps(found))
        return
    print("experts   scalar   lanes   (million rows/s)")
    for experts, row in found.items():
        print(f"{experts:>7}  {row['scalar']:7.2f} {row['lanes']:7.2f}   {row['ratio']:.1f}×")


if __name__ == "__main__":
    main()
