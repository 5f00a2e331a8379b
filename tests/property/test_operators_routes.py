"""Laws 1 to 4: routes are distributions, chunking and shifts change nothing, unknown is neutral."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routekeel.operators.columns import ROW
from routekeel.operators.config import RouterConfig
from routekeel.operators.contract import Chunk
from routekeel.operators.gates import route_logits, softmax
from routekeel.operators.state import RouterState
from routekeel.operators.step import Kernel, step
from tests.oracle.control_law import LayerState
from tests.oracle.control_law import step as oracle_step
from tests.oracle.drive import KERNELS, ambiguity, drive

seeds = st.integers(0, 2**32 - 1)
# One run in CI is the same as the next; a failure prints its seed as the example.
lawful = settings(max_examples=25, deadline=None, derandomize=True)
both = pytest.mark.parametrize("kernel", KERNELS)


def session(seed: int, T: int, E: int, scale: float) -> tuple[np.ndarray, list[float | None]]:
    """A random walk of logits [T, E] and A* that is now and then unknown."""
    rng = np.random.default_rng(seed)
    z = (rng.normal(size=(T, E)) * 0.4).cumsum(axis=0) * scale
    a_star = [None if rng.random() < 0.15 else float(rng.random()) for _ in range(T)]
    return z.astype(np.float32), a_star


@both
@given(seeds, st.integers(1, 512), st.floats(-3, 4))
@lawful
def test_law_1_routes_are_distributions(
    kernel: Kernel, seed: int, E: int, magnitude: float
) -> None:
    rng = np.random.default_rng(seed)
    z = rng.uniform(-1, 1, size=(6, E)) * 10.0**magnitude
    _, output = drive(z, rng.random(6), kernel=kernel)
    w_hat = output.row_w_hat.astype(np.float64)
    assert np.isfinite(w_hat).all()
    assert (w_hat >= 0).all()
    assert np.abs(w_hat.sum(axis=1) - 1).max() <= 1e-5


@both
@given(seeds, st.integers(2, 20), st.lists(st.integers(0, 12), max_size=5))
@lawful
def test_law_2_splitting_changes_no_byte(
    kernel: Kernel, seed: int, E: int, cuts: list[int]
) -> None:
    z, a_star = session(seed, 12, E, 1.0)
    z = np.stack([z, z[::-1]], axis=1)
    whole_state, whole = drive(z, a_star, kernel=kernel)
    state = RouterState.initial(2, E)
    rows, routes = [], []
    edges = sorted({0, 12, *cuts})
    for start, end in pairwise(edges):
        state = RouterState.from_bytes(state.to_bytes())
        state, part = drive(z[start:end], a_star[start:end], kernel=kernel, state=state)
        rows.append(part.rows)
        routes.append(part.row_w_hat)
    assert state == whole_state
    assert np.concatenate(rows).tobytes() == whole.rows.tobytes()
    assert np.concatenate(routes).tobytes() == whole.row_w_hat.tobytes()


@both
@given(seeds, st.integers(2, 40))
@lawful
def test_law_3_a_constant_per_row_changes_nothing(kernel: Kernel, seed: int, E: int) -> None:
    rng = np.random.default_rng(seed)
    z = rng.uniform(-50, 50, size=(8, E)).astype(np.float32)
    c = rng.uniform(-50, 50, size=(8, 1)).astype(np.float32)
    a_star = rng.random(8)
    _, plain = drive(z, a_star, kernel=kernel)
    _, shifted = drive(z + c, a_star, kernel=kernel)
    assert np.abs(plain.row_w_hat - shifted.row_w_hat).max() <= 1e-5
    # The secants divide by ‖Δz‖, which a constant that differs between rows does change.
    unaffected = [at for name, at in ROW.items() if "secant" not in name]
    difference = plain.rows[:, unaffected] - shifted.rows[:, unaffected]
    assert np.nanmax(np.abs(difference)) <= 2e-5


@both
@given(seeds, st.integers(2, 40))
@lawful
def test_law_3_permuting_experts_permutes_routes(kernel: Kernel, seed: int, E: int) -> None:
    z, a_star = session(seed, 8, E, 2.0)
    order = np.random.default_rng(seed).permutation(E)
    _, plain = drive(z, a_star, kernel=kernel)
    _, permuted = drive(z[:, order], a_star, kernel=kernel)
    assert np.abs(plain.row_w_hat[:, order] - permuted.row_w_hat).max() <= 1e-6
    assert np.array_equal(plain.load_base[:, order], permuted.load_base)


@both
@given(seeds, st.integers(1, 70))
@lawful
def test_law_4_unknown_ambiguity_is_the_zero_effect_shadow(
    kernel: Kernel, seed: int, E: int
) -> None:
    z, _ = session(seed, 6, E, 3.0)
    _, output = drive(z, None, kernel=kernel)
    e = np.exp(z.astype(np.float64) - z.max(axis=1, keepdims=True))
    assert np.abs(output.row_w_hat - e / e.sum(axis=1, keepdims=True)).max() <= 1e-6
    assert np.abs(output.row_column("route_shift")).max() <= 1e-6
    assert (output.row_column("beta") == 1).all()
    assert np.isnan(output.row_column("a_star")).all()


@both
@given(seeds, st.integers(2, 40))
@lawful
def test_law_4_lambda_zero_freezes_the_route(kernel: Kernel, seed: int, E: int) -> None:
    z, _ = session(seed, 10, E, 3.0)
    frozen = RouterConfig(lambda_min=0.0, lambda_max=0.0)
    _, output = drive(z, 0.5, frozen, kernel=kernel)
    assert np.abs(np.diff(output.row_w_hat, axis=0)).max() <= 1e-6


@both
@given(seeds, st.integers(2, 64))
@lawful
def test_every_prefix_agrees_with_the_oracle(kernel: Kernel, seed: int, E: int) -> None:
    z, a_star = session(seed, 14, E, 1.0)
    config = RouterConfig(spike_distance=0.2, dead_band=0.01, pi_mode="regulate")
    a_star = [None if a is None else float(np.float32(a)) for a in a_star]
    _, output = drive(z, a_star, config, kernel=kernel)
    layer = LayerState()
    for t, a in enumerate(a_star):
        expected = oracle_step(config.to_dict(), layer, z[t].astype(np.float64), a)
        w_hat = expected.pop("w_hat")
        assert np.abs(output.row_w_hat[t] - w_hat).max() <= 2e-6
        for name, value in expected.items():
            got = output.row_column(name)[t]
            if value is None:
                assert np.isnan(got), name
            else:
                assert abs(got - value) <= max(3e-6, 2e-5 * abs(value)), name


@given(seeds, st.integers(1, 300))
@lawful
def test_route_logits_stand_for_the_route(seed: int, E: int) -> None:
    z, _ = session(seed, 4, E, 5.0)
    w, _, _ = softmax(z)
    again, _, _ = softmax(route_logits(w))
    assert np.isfinite(route_logits(w)).all()
    assert np.abs(again - w).max() <= 1e-6


@both
def test_a_chunk_of_no_tokens_changes_nothing(kernel: Kernel) -> None:
    state, _ = drive(np.eye(4), 0.5, kernel=kernel)
    after, output = step(
        RouterConfig(), state, Chunk(np.zeros((0, 1, 4), np.float32), ambiguity([])), kernel=kernel
    )
    assert after == state
    assert output.layer_column("tokens").tolist() == [0]
    assert np.isnan(output.layer_column("beta")).all()
