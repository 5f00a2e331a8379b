"""Formulas at their edges, against NumPy in float64; and every example in the docstrings."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import numpy as np
import pytest

import routekeel.operators
from routekeel.operators.ambiguity import combine, predictive
from routekeel.operators.arithmetic import exp32, lane_sum, log32
from routekeel.operators.buckets import BUCKETS, bucket, in_share
from routekeel.operators.config import DEFAULT
from routekeel.operators.contract import Chunk
from routekeel.operators.flips import margin, ranked
from routekeel.operators.hidden import expert_distance, router_gram
from routekeel.operators.lipschitz import probe_metrics
from routekeel.operators.load import imbalance
from routekeel.operators.state import RouterState
from routekeel.operators.step import Kernel, step
from tests.oracle.control_law import covariance, softmax
from tests.oracle.drive import KERNELS, drive

MODULES = [module.name for module in pkgutil.iter_modules(routekeel.operators.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str) -> None:
    module = importlib.import_module(f"routekeel.operators.{name}")
    assert module.__doc__
    assert doctest.testmod(module).failed == 0


def test_exp_and_log_are_as_exact_as_they_say() -> None:
    x = np.linspace(-86.9, 88, 200_001, dtype=np.float32)
    exact = np.exp(x.astype(np.float64))
    assert (np.abs(exp32(x) - exact) <= 1.5 * np.spacing(exact.astype(np.float32))).all()
    assert exp32(np.float32([-87, -1e4, -np.inf])).tolist() == [0, 0, 0]
    y = np.geomspace(1.2e-38, 3e38, 200_001).astype(np.float32)
    exact = np.log(y.astype(np.float64))
    bound = np.maximum(1e-7, 2 * np.spacing(np.abs(exact).astype(np.float32)))
    assert (np.abs(log32(y) - exact) <= bound).all()


@pytest.mark.parametrize("E", [1, 3, 8, 17, 512])
def test_lane_sums_are_near_exact(E: int) -> None:
    x = np.random.default_rng(E).normal(size=(20, E)).astype(np.float32)
    exact = x.astype(np.float64).sum(axis=-1)
    np.testing.assert_allclose(lane_sum(x), exact, atol=2e-7 * E)


def test_a_star_uses_what_is_known() -> None:
    nan = np.nan
    supplied = np.array([[nan, nan, nan], [0.2, nan, 0.6], [2.0, -1.0, nan]], dtype=np.float32)
    routing = np.array([0.5, 0.1, nan], dtype=np.float32)
    exogenous = combine(DEFAULT, supplied, routing)
    assert exogenous.a_star[1:].tolist() == pytest.approx([0.4, 0.5])
    assert np.isnan(exogenous.a_star[0])
    assert exogenous.mask.tolist() == [0, 5, 3]
    mixed = combine(DEFAULT.with_changes(alpha_routing=2.0), supplied, routing)
    assert mixed.a_star.tolist() == pytest.approx([0.5, 0.25, 0.5])
    assert mixed.mask.tolist() == [8, 13, 3]
    assert mixed.a_exogenous[1:].tolist() == exogenous.a_star[1:].tolist()
    with pytest.raises(ValueError, match="vocabulary"):
        predictive(np.float32(1), 1)


@pytest.mark.parametrize("kernel", KERNELS)
def test_one_expert_has_no_choice(kernel: Kernel) -> None:
    state, output = drive(np.array([[3.0], [-2.0]]), 0.9, kernel=kernel)
    assert state.w_hat.tolist() == [[1.0]]
    for name in ("g_base", "g_controlled", "grad_norm", "route_entropy", "vertex_distance"):
        assert output.row_column(name).tolist() == [0, 0], name
    assert np.isnan(output.row_column("relative_entropy")).all()
    assert np.isnan(output.row_column("margin")).all()
    assert output.load_base.tolist() == [[2]]


@pytest.mark.parametrize("kernel", KERNELS)
def test_hysteresis_keeps_a_winner_until_the_lead_is_clear(kernel: Kernel) -> None:
    z = np.array([[1.0, 0.0]] * 2 + [[0.0, 0.4]] * 3 + [[0.0, 3.0]] * 6)
    config = DEFAULT.with_changes(hysteresis=0.3, spike_distance=1.4)
    _, output = drive(z, None, config, kernel=kernel)
    assert output.row_w_hat.argmax(axis=1).tolist() == [0, 0, 1, 1, 1] + [1] * 6
    narrow = config.with_changes(hysteresis=0.5)
    state, output = drive(z, None, narrow, kernel=kernel)
    assert output.row_w_hat.argmax(axis=1).tolist() == [0, 0, 0, 0, 0] + [1] * 6
    assert output.row_column("winner_flip_controlled").tolist()[1:] == [0] * 4 + [1] + [0] * 5
    # The moving average itself is not touched: only what is emitted.
    e = np.exp(z[2] - z[2].max())
    assert output.row_w_hat[2] == pytest.approx((e / e.sum())[::-1], abs=1e-6)
    assert output.route[0] == pytest.approx(state.w_hat[0])


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("E", [4, 11])
def test_hidden_space_metrics_need_the_router_matrix(kernel: Kernel, E: int) -> None:
    rng = np.random.default_rng(E)
    W = rng.normal(size=(E, 7))
    z = rng.normal(size=(3, 2, E)).astype(np.float32)
    chunk = Chunk(z, np.full((3, 3), 0.4, np.float32), top_k=2, gram_index=[0, -1])
    _, output = step(DEFAULT, RouterState.initial(2, E), chunk, router_gram(W)[None], kernel=kernel)
    for t in range(3):
        row, unknown = output.rows[2 * t], output.rows[2 * t + 1]
        base = softmax(z[t, 0].astype(np.float64))
        assert output.row_column("g_hidden_base")[2 * t] == pytest.approx(
            np.linalg.norm(covariance(base) @ W, 2), rel=1e-4
        )
        order = np.argsort(-z[t, 0])
        edge = float(z[t, 0, order[1]] - z[t, 0, order[2]])
        wanted = edge / np.linalg.norm(W[order[1]] - W[order[2]])
        assert output.row_column("flip_distance")[2 * t] == pytest.approx(wanted, rel=1e-4)
        assert np.isnan(unknown).sum() == np.isnan(row).sum() + 3
    assert np.isnan(output.layer_column("g_hidden_base")).tolist() == [False, True]


def test_margin_and_expert_distance_at_their_edges() -> None:
    z = np.array([[1.0, 1.0, 0.0]], dtype=np.float32)
    assert margin(z, ranked(z), 1).tolist() == [0]
    assert ranked(z).tolist() == [[0, 1, 2]]
    assert expert_distance(router_gram(np.ones((2, 3))), 0, 1) == 0


def test_load_without_tokens_is_unknown() -> None:
    over_mean, variation = imbalance(np.array([[0, 0], [2, 2]], dtype=np.int32))
    assert np.isnan(over_mean).tolist() == [True, False]
    assert variation.tolist()[1] == 0


def test_probes_leave_out_what_was_not_measured() -> None:
    nan = float("nan")
    none = probe_metrics([], [], [])
    assert np.isnan([none.l_perp, none.g_probe, none.l_para]).all()
    some = probe_metrics([1, 0, nan, 2], [0.5, 1, 1, 3], [0.1, 1, 1, 0.1], 2.0, 1.0)
    assert (some.l_perp, some.g_probe, some.l_para) == pytest.approx((1.0, 0.075, 0.5))
    assert some.directions == 2
    with pytest.raises(ValueError, match="alike"):
        probe_metrics([1], [1, 2], [1])


def test_buckets_are_stable_even_and_independent_of_each_other() -> None:
    # Published values: a change would move sessions between arms of a running rollout.
    assert [bucket("salt", f"session-{n}") for n in range(4)] == EXPECTED_BUCKETS
    drawn = np.array([bucket("a", str(n)) for n in range(20_000)])
    assert drawn.min() >= 0
    assert drawn.max() < BUCKETS
    assert np.bincount(drawn // 1000, minlength=10).std() < 150
    other = np.array([bucket("b", str(n)) for n in range(20_000)])
    assert abs(np.corrcoef(drawn, other)[0, 1]) < 0.03
    assert bucket("ab", "c") != bucket("a", "bc")
    assert sum(in_share("a", str(n), 0.1) for n in range(20_000)) == (drawn < 1000).sum()


EXPECTED_BUCKETS = [8615, 6854, 6281, 8468]
