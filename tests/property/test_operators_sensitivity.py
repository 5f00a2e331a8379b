"""Law 5: G and ‖∇w‖ are the derivative of the route, here held to central differences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routekeel.operators.hidden import covariance_norm, router_gram
from routekeel.operators.sensitivity import covariance_norms
from routekeel.operators.step import Kernel
from tests.oracle.control_law import covariance, operator_norm, softmax
from tests.oracle.drive import KERNELS, drive

seeds = st.integers(0, 2**32 - 1)
lawful = settings(max_examples=25, deadline=None, derandomize=True)


def jacobian(z: np.ndarray, before: np.ndarray, beta: float, rate: float) -> np.ndarray:
    """dŵ/dz by central differences in float64, with β, λ and ŵ_prev held."""
    h = 1e-5
    columns = []
    for place in range(z.size):
        nudge = np.zeros(z.size)
        nudge[place] = h
        up, down = (
            (1 - rate) * before + rate * softmax(beta * (z + sign * nudge)) for sign in (1, -1)
        )
        columns.append((up - down) / (2 * h))
    return np.column_stack(columns)


@pytest.mark.parametrize("kernel", KERNELS)
@given(seeds, st.integers(2, 24), st.floats(-2, 1))
@lawful
def test_law_5_g_equals_finite_differences(
    kernel: Kernel, seed: int, E: int, magnitude: float
) -> None:
    rng = np.random.default_rng(seed)
    z = (rng.normal(size=(5, E)) * 10.0**magnitude).astype(np.float32)
    _, output = drive(z, rng.random(5), kernel=kernel)
    before = np.zeros(E)
    for t in range(5):
        beta, rate = (float(output.row_column(name)[t]) for name in ("beta", "lambda_effective"))
        J = jacobian(z[t].astype(np.float64), before, beta, rate)
        g = float(output.row_column("g_controlled")[t])
        assert g <= rate * beta / 2 + 1e-6
        if g > 1e-3:
            assert g == pytest.approx(np.linalg.norm(J, 2), rel=1e-3)
            slope = float(output.row_column("grad_norm")[t])
            assert slope == pytest.approx(np.linalg.norm(J), rel=1e-3)
        before = output.row_w_hat[t].astype(np.float64)


def hard_routes(rng: np.random.Generator, E: int) -> np.ndarray:
    """Routes near every degenerate case: ties, clusters, one-hot, geometric."""
    cluster = np.r_[1.0, 1 - 10 ** rng.uniform(-6, -1), np.full(E - 2, 10 ** rng.uniform(-5, 0))]
    shapes = [
        rng.dirichlet(np.full(E, rng.choice([0.05, 0.2, 1, 5]))),
        np.full(E, 1.0),
        np.r_[np.full(E - 1, 1.0), 0.0],
        cluster,
        rng.uniform(0.2, 0.99) ** np.arange(E),
        np.r_[1.0, rng.random(E - 1) * 10 ** rng.uniform(-9, 0)],
        np.r_[1.0, np.zeros(E - 1)],
    ]
    return np.stack([shape / shape.sum() for shape in shapes])


@given(seeds, st.integers(2, 80))
@lawful
def test_the_covariance_norm_holds_at_degenerate_routes(seed: int, E: int) -> None:
    routes = hard_routes(np.random.default_rng(seed), E).astype(np.float32)
    two, frobenius, square = covariance_norms(routes)
    for w, got_two, got_frobenius, got_square in zip(routes, two, frobenius, square, strict=True):
        exact = w.astype(np.float64)
        assert got_two == pytest.approx(operator_norm(exact), rel=1e-5, abs=5e-7)
        wanted = np.linalg.norm(covariance(exact))
        assert got_frobenius == pytest.approx(wanted, rel=1e-5, abs=5e-7)
        assert got_square == pytest.approx((exact**2).sum(), rel=1e-5)


@given(seeds, st.integers(2, 40), st.integers(1, 48))
@lawful
def test_g_in_hidden_space_equals_the_singular_value(seed: int, E: int, d: int) -> None:
    rng = np.random.default_rng(seed)
    W = rng.normal(size=(E, d))
    w = softmax(rng.normal(size=E) * rng.choice([0.1, 1, 3]))
    exact = np.linalg.norm(covariance(w) @ W, 2)
    got = covariance_norm(w.astype(np.float32), router_gram(W))
    assert got == pytest.approx(exact, rel=1e-4 if E <= 16 else 1e-3)
