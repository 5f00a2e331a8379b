"""Laws 6, 8 and 9: state survives bad rows, the PI settles and unwinds, the guard counts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from routekeel.operators.config import DEFAULT
from routekeel.operators.step import Kernel
from tests.oracle.control_law import operator_norm, softmax
from tests.oracle.drive import KERNELS, drive

seeds = st.integers(0, 2**32 - 1)
lawful = settings(max_examples=20, deadline=None, derandomize=True)
few = settings(max_examples=5, deadline=None, derandomize=True)
both = pytest.mark.parametrize("kernel", KERNELS)


@both
@given(seeds, st.integers(1, 20), st.sampled_from([np.nan, np.inf, -np.inf]))
@lawful
def test_law_6_bad_and_repeated_rows_leave_state_alone(
    kernel: Kernel, seed: int, E: int, poison: float
) -> None:
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(6, 2, E)).astype(np.float32)
    a_star = rng.random(6)
    state, _ = drive(z, a_star, kernel=kernel)
    repeated, output = drive(
        z, a_star, kernel=kernel, state=state, apply=np.zeros((6, 2), np.uint8)
    )
    assert repeated == state
    assert output.layer_column("tokens").tolist() == [0, 0]
    bad = z.copy()
    bad[np.arange(6), :, rng.integers(0, E, 6)] = poison
    poisoned, output = drive(bad, a_star, kernel=kernel, state=state)
    assert poisoned == state
    assert output.layer_column("rejected").tolist() == [6, 6]


@both
@given(seeds, st.integers(2, 9))
@lawful
def test_law_6_only_the_new_part_of_an_overlap_is_applied(
    kernel: Kernel, seed: int, E: int
) -> None:
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(8, 3, E)).astype(np.float32)
    a_star = rng.random(8)
    whole, _ = drive(z, a_star, kernel=kernel)
    state, _ = drive(z[:5], a_star[:5], kernel=kernel)
    apply = np.repeat((np.arange(3, 8) >= 5)[:, None], 3, axis=1).astype(np.uint8)
    state, output = drive(z[3:], a_star[3:], kernel=kernel, state=state, apply=apply)
    assert state == whole
    assert output.layer_column("tokens").tolist() == [3, 3, 3]


def reachable_rows(rng: np.random.Generator, E: int, a_star: float) -> np.ndarray:
    """Rows [L, E] whose λβ‖Σ‖₂ passes the target between the schedule and the lower limits."""
    clear = 1 - a_star
    beta = DEFAULT.beta_min + (DEFAULT.beta_max - DEFAULT.beta_min) * clear
    rate = DEFAULT.lambda_min + (DEFAULT.lambda_max - DEFAULT.lambda_min) * clear
    rows = []
    for z in rng.normal(size=(40, E)) * rng.uniform(0.2, 2.5, size=(40, 1)):
        tight = DEFAULT.beta_min * DEFAULT.lambda_min * operator_norm(softmax(DEFAULT.beta_min * z))
        if tight < DEFAULT.g_target < beta * rate * operator_norm(softmax(beta * z)):
            rows.append(z)
    return np.array(rows).reshape(-1, E)


@both
@pytest.mark.parametrize("mode", ["ceiling", "regulate"])
@given(seeds, st.integers(2, 12), st.floats(0.7, 0.95))
@few
def test_law_8_pi_settles_on_a_reachable_target(
    kernel: Kernel, mode: str, seed: int, E: int, a_star: float
) -> None:
    rows = reachable_rows(np.random.default_rng(seed), E, a_star)
    assume(len(rows))
    config = DEFAULT.with_changes(pi_mode=mode)
    z = np.broadcast_to(rows, (250, *rows.shape))
    _, output = drive(z, a_star, config, kernel=kernel)
    error = np.abs(output.row_column("pi_error")).reshape(250, len(rows))
    # The first correction may overshoot: the fifth error can exceed the fourth by a little. After
    # three tokens every error is below the one two before it, after four below the last. This is less
    # than the law's words, and docs/decisions/0007 says why.
    assert (error[4] <= 1.1 * error[3] + 1e-6).all()
    assert (error[5:] - error[3:-2] <= 1e-6).all()
    assert (np.diff(error[4:], axis=0) <= 1e-6).all()
    assert (error[-1] < 0.01 * DEFAULT.g_target).all()


@both
@given(seeds, st.floats(0.7, 0.9))
@few
def test_law_8_an_unreachable_target_does_not_wind_up(
    kernel: Kernel, seed: int, a_star: float
) -> None:
    rng = np.random.default_rng(seed)
    undecided = np.zeros((120, 8, 2))
    decided = np.zeros((10, 8, 2))
    decided[..., 1] = rng.uniform(2.5, 3.5, size=8)
    config = DEFAULT.with_changes(g_target=0.05, spike_distance=1.4)
    z = np.concatenate([undecided, decided])
    _, output = drive(z, a_star, config, kernel=kernel)
    beta, rate, error, integral = (
        output.row_column(name).reshape(130, 8)
        for name in ("beta", "lambda", "pi_error", "pi_integral")
    )
    # The integral stops one step short of the limit: what would saturate is not taken up.
    assert (error[:120] > 0).all()
    assert (integral[60:120] == integral[60]).all()
    assert (integral[60] < config.integral_max / 2).all()
    assert (beta[60:120] * rate[60:120] < 1.02 * 0.85 * 0.25).all()
    assert (integral[129] < integral[119]).all()
    assert (beta[129] * rate[129] > 1.02 * beta[119] * rate[119]).all()


@both
@given(seeds, st.integers(1, 4), st.integers(1, 6), st.integers(1, 39))
@lawful
def test_law_9_the_guard_counts_exactly(
    kernel: Kernel, seed: int, count: int, ticks: int, cut: int
) -> None:
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(40, 4)) * rng.choice([0.2, 4.0], size=(40, 1))
    config = DEFAULT.with_changes(spike_distance=0.3, spike_count=count, hold_ticks=ticks)
    a_star = [None if rng.random() < 0.1 else 0.3 for _ in range(40)]
    state, first = drive(z[:cut], a_star[:cut], config, kernel=kernel)
    _, second = drive(z[cut:], a_star[cut:], config, kernel=kernel, state=state)
    column = {
        name: np.concatenate([first.row_column(name), second.row_column(name)])
        for name in ("distance", "spike", "held", "spike_run", "hold_left", "beta", "lambda")
    }
    run = left = 0
    for t, a in enumerate(a_star):
        spike = held = False
        if a is not None and left > 0:
            held, left = True, left - 1
            assert column["beta"][t] == np.float32(0.85)
            assert column["lambda"][t] == np.float32(0.25)
        elif a is not None and t > 0:
            spike = bool(column["distance"][t] > np.float32(0.3))
            run = run + 1 if spike else 0
            if run == count:
                run, left = 0, ticks
        state_here = [column[name][t] for name in ("spike", "held", "spike_run", "hold_left")]
        assert state_here == [spike, held, run, left]
