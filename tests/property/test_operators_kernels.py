"""Law 7: the compiled kernel and the NumPy one give the same bytes, whatever comes in."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from routekeel.operators.config import RouterConfig
from routekeel.operators.contract import BatchOutput, ChunkBatch
from routekeel.operators.hidden import router_gram
from routekeel.operators.state import initial_rows
from routekeel.operators.step import step_many
from tests.oracle.drive import drive

SLOTS = 12
EXPERTS = (1, 2, 3, 5, 7, 8, 9, 16, 17, 60, 64)


def any_config(rng: np.random.Generator) -> RouterConfig:
    return RouterConfig(
        pi_mode="regulate" if rng.random() < 0.5 else "ceiling",
        alpha_routing=float(rng.integers(0, 2)),
        hysteresis=float(rng.choice([0, 0.3])),
        spike_distance=float(rng.choice([0.05, 0.5])),
        dead_band=float(rng.choice([0, 0.02])),
        schedule_knee=float(rng.choice([1, 0.7])),
        g_target=float(rng.choice([0.05, 0.1, 0.3])),
        activation=float(rng.choice([0.1, 0.7])),
        spike_count=int(rng.integers(1, 4)),
        integral_max=float(rng.choice([0.1, 6.0])),
    )


def any_batch(rng: np.random.Generator) -> ChunkBatch:
    """Chunks of mixed shapes that share slots, with bad rows, repeats, ties and gaps in A*."""
    E, C = int(rng.choice(EXPERTS)), int(rng.integers(1, 6))
    T, L = rng.integers(0, 9, C), rng.integers(0, 5, C)
    rows = int((T * L).sum())
    z = (rng.normal(size=(rows, E)) * 10 ** rng.uniform(-3, 2)).astype(np.float32)
    if rng.random() < 0.3:
        z = np.round(z)
    if rows and rng.random() < 0.4:
        z[rng.integers(rows)] = np.nan
        z[rng.integers(rows), rng.integers(E)] = np.inf
    supplied = rng.uniform(-0.1, 1.1, (int(T.sum()), 3)).astype(np.float32)
    supplied[rng.random(supplied.shape) < 0.5] = np.nan
    return ChunkBatch.build(
        z,
        T,
        L,
        np.concatenate([rng.permutation(SLOTS)[:layers] for layers in L]),
        top_k=rng.integers(1, 5, C),
        apply=rng.random(rows) < 0.9,
        ambiguity=supplied,
        detail=rng.integers(0, 2, C),
        gram_index=rng.integers(-1, 3, int(L.sum())),
    )


def same_bytes(one: BatchOutput, other: BatchOutput) -> list[str]:
    """Names of the arrays that differ; NaN equals NaN whatever its payload."""
    differing = []
    for field in fields(BatchOutput):
        x, y = getattr(one, field.name), getattr(other, field.name)
        if not np.array_equal(x, y, equal_nan=x.dtype.kind == "f"):
            differing.append(field.name)
    return differing


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_law_7_kernels_are_bitwise_equal(seed: int) -> None:
    rng = np.random.default_rng(seed)
    config, batch = any_config(rng), any_batch(rng)
    gram = router_gram(rng.normal(size=(3, batch.experts, 16)))
    compiled = plain = initial_rows(SLOTS, batch.experts)
    for _ in range(2):
        compiled, compiled_output = step_many(config, compiled, batch, gram, kernel="numba")
        plain, plain_output = step_many(config, plain, batch, gram, kernel="numpy")
        assert compiled.tobytes() == plain.tobytes()
        assert not same_bytes(compiled_output, plain_output)


def test_law_7_no_drift_over_ten_thousand_steps() -> None:
    rng = np.random.default_rng(7)
    z = rng.normal(size=(10_000, 1, 8)).astype(np.float32)
    a_star = rng.random(10_000)
    compiled, compiled_output = drive(z, a_star, kernel="numba")
    plain, plain_output = drive(z, a_star, kernel="numpy")
    assert compiled == plain
    assert compiled_output.row_w_hat.tobytes() == plain_output.row_w_hat.tobytes()
