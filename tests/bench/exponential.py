"""`python -m tests.bench.exponential`: the kernel's softmax, eight lanes of a polynomial, against a scalar one.

The scalar one is what numba makes of `math.exp` in a loop, with the same results: the weights, and the
sums Σe and Σe·x from which the entropy follows (what the kernel needs of every row, twice). As in the
kernel, a row's logits lie in a buffer of a few rows that stays in the nearest cache, and its weights
go beside them; a call works on the rows many times over, so that the arithmetic is timed and not the call.
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

from routekeel.operators.compilation import CompiledUnit, array_out
from routekeel.operators.kernels_math import max_of, softmax_into

VALUES, PASSES, REPEATS = 2**11, 2_000, 9
ONE = np.float32(1)


@njit(nogil=True, error_model="numpy")
def scalar(buffer: Any, sums: Any, E: int, passes: int) -> None:
    """Row by row, expert by expert: weights of the buffer's first half into its second."""
    half = buffer.shape[0] // 2
    for _ in range(passes):
        for row in range(half // E):
            z = row * E
            w = half + z
            top = buffer[z]
            for index in range(1, E):
                top = max(top, buffer[z + index])
            total = moment = np.float32(0)
            for index in range(E):
                x = (buffer[z + index] - top) * ONE
                e = np.float32(math.exp(x))
                buffer[w + index] = e
                total += e
                moment += e * x
            inverse = ONE / total
            for index in range(E):
                buffer[w + index] *= inverse
            sums[row, 0], sums[row, 1] = total, moment


def _lanes(source_digest: int) -> Any:
    def run(buffer: Any, sums: Any, E: Any, passes: Any) -> Any:
        if source_digest != 0:
            half = buffer.shape[0] // 2
            for _ in range(passes):
                for row in range(half // E):
                    z = row * E
                    top = max_of(buffer, z, E // 8)
                    _, total, moment = softmax_into(buffer, z, half + z, E // 8, top, ONE)
                    sums[row, 0], sums[row, 1] = total, moment

    return run


def measure() -> dict[str, Any]:
    """Million rows a second of both, by number of experts; the two must agree."""
    from numba import types

    f32 = types.float32
    lanes = CompiledUnit().entry(
        types.void(array_out(f32, 1), array_out(f32, 2), types.int64, types.int64), _lanes
    )
    out: dict[str, Any] = {}
    for experts in (8, 64, 128, 256):
        logits = np.random.default_rng(0).normal(scale=3, size=VALUES).astype(np.float32)
        buffer = np.concatenate([logits, np.zeros_like(logits)])
        rows = VALUES // experts
        sums = np.empty((rows, 2), np.float32)
        rates: dict[str, list[float]] = {"scalar": [], "lanes": []}
        found = {}
        for _ in range(REPEATS):
            for name, function in (("scalar", scalar), ("lanes", lanes)):
                started = time.perf_counter()
                function(buffer, sums, experts, PASSES)
                rates[name].append(PASSES * rows / (time.perf_counter() - started) / 1e6)
                found[name] = buffer[VALUES:].copy()
        np.testing.assert_allclose(found["lanes"], found["scalar"], rtol=1e-5)
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
