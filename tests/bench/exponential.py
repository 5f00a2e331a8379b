"""`python -m tests.bench.exponential`: the kernel's softmax, eight lanes of a polynomial, against a scalar one.

The scalar one is what numba makes of `math.exp` in a loop, the same sums and divisions around it. The
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
def scalar(logits: Any, w: Any, E: int) -> None:
    """Row by row, expert by expert."""
    for row in range(logits.shape[0] // E):
        start = row * E
        top = logits[start]
        for index in range(1, E):
            top = max(top, logits[start + index])
        total = np.float32(0)
        for index in range(E):
            w[start + index] = np.float32(math.exp(logits[start + index] - top))
            total += w[start + index]
        for index in range(E):
            w[start + index] /= total


def _lanes(source_digest: int) -> Any:
    def run(logits: Any, w: Any, E: Any) -> Any:
        if source_digest != 0:
            for row in range(logits.shape[0] // E):
                start = row * E
                softmax_into(w, start, start, E // 8, max_of(w, start, E // 8), ONE)

    return run


def measure() -> dict[str, Any]:
    """Million rows a second of both, by number of experts."""
    from numba import types

    f32 = types.float32
    lanes = CompiledUnit().entry(
        types.void(array_in(f32, 1), array_out(f32, 1), types.int64), _lanes
    )
    out: dict[str, Any] = {}
    for experts in (8, 64, 128, 256):
        logits = np.random.default_rng(0).normal(scale=3, size=VALUES).astype(np.float32)
        w = logits.copy()
        rates: dict[str, list[float]] = {"scalar": [], "lanes": []}
        for _ in range(REPEATS):
            for name, function in (("scalar", scalar), ("lanes", lanes)):
                seconds = 0.0
                for _ in range(CALLS):
                    w[:] = logits
                    started = time.perf_counter()
                    function(logits, w, experts)
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
