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
from rich.console import Console

from routekeel.operators.arithmetic import exp32
from routekeel.operators.compilation import CompiledUnit, array_out
from routekeel.operators.kernels_math import max_of, softmax_into

from .tables import exponential_sheet

VALUES, PASSES, REPEATS = 2**11, 2_000, 8
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


def measure(passes: int = PASSES, repeats: int = REPEATS) -> dict[str, Any]:
    """Million rows a second and the errors of both, by number of experts; the two must agree."""
    from numba import types

    f32 = types.float32
    lanes = CompiledUnit().entry(
        types.void(array_out(f32, 1), array_out(f32, 2), types.int64, types.int64), _lanes
    )
    cases = []
    for experts in (8, 64, 128, 256):
        logits = np.random.default_rng(0).normal(scale=3, size=VALUES).astype(np.float32)
        buffer = np.concatenate([logits, np.zeros_like(logits)])
        rows = VALUES // experts
        sums = np.empty((rows, 2), np.float32)
        rates: dict[str, list[float]] = {"scalar": [], "lanes": []}
        found = {}
        for _ in range(1 + repeats):
            for name, function in (("scalar", scalar), ("lanes", lanes)):
                started = time.perf_counter()
                function(buffer, sums, experts, passes)
                rates[name].append(passes * rows / (time.perf_counter() - started) / 1e6)
                found[name] = buffer[VALUES:].copy()
        np.testing.assert_allclose(found["lanes"], found["scalar"], rtol=1e-5)
        median = {name: statistics.median(values[1:]) for name, values in rates.items()}
        exact = _softmax(logits.reshape(rows, experts)).reshape(-1)
        errors = {f"{n}_error": float(np.max(np.abs(w / exact - 1))) for n, w in found.items()}
        ratio = median["lanes"] / median["scalar"]
        cases.append({"experts": experts, **median, "ratio": ratio, **errors})
    return {"cases": cases, "exp_ulp": _exp_ulp()}


def _softmax(logits: Any) -> Any:
    """In float64."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _exp_ulp() -> float:
    """The largest error of e^x over a softmax's exponents, of `exp32`, whose bytes are the lanes'."""
    x = np.linspace(-87, 0, 1_000_001, dtype=np.float32)[1:]  # at −87 it is 0
    exact = np.exp(x.astype(np.float64))
    return float(np.max(np.abs(exp32(x) - exact) / np.spacing(exact.astype(np.float32))))


def main() -> None:
    """Print the table, or one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.exponential", description=__doc__)
    parser.add_argument("--json", action="store_true")
    found = measure()
    if parser.parse_args().json:
        print(json.dumps(found))
        return
    Console().print(exponential_sheet(found).table())


if __name__ == "__main__":
    main()
