"""The PI controller that holds G at its target while text is ambiguous.

It measures under the control in force before it corrects, so that it closes a loop; its integral
stops while the actuators stand at a limit that the error pushes against (anti-windup).
"""

from __future__ import annotations

import numpy as np

from routekeel.operators.arithmetic import F32, ZERO, clip32, f32
from routekeel.operators.config import RouterConfig
from routekeel.operators.gates import softmax
from routekeel.operators.schedules import tightened
from routekeel.operators.sensitivity import covariance_norms


def measured_gain(config: RouterConfig, z: F32, beta_0: F32, rate_0: F32, u_prev: F32) -> F32:
    """λ1 β1 ‖Σ(softmax(β1 z))‖₂ f32[n] ≥ 0 on rows z f32[n, E], with β1, λ1 under the last output."""
    beta_1, rate_1 = tightened(config, beta_0, rate_0, u_prev)
    w, _, _ = softmax(z, beta_1)
    return np.asarray((rate_1 * beta_1) * covariance_norms(w)[0], dtype=f32)


def pi_error(config: RouterConfig, gain: F32) -> F32:
    """e [n] = gain − G_target (units of G), 0 inside the dead band |e| < dead_band; the band does not shift e."""
    error = np.asarray(gain - f32(config.g_target), dtype=f32)
    return np.where(np.abs(error) < f32(config.dead_band), ZERO, error).astype(f32)


def pi_update(
    config: RouterConfig, error: F32, beta_0: F32, rate_0: F32, integral: F32
) -> tuple[F32, F32]:
    """(I, u) after one token: u = k_p e + k_i I, I += e unless that winds up. All f32[n].

    I ∈ [0, I_max] and u ≥ 0 in mode 'ceiling', I ∈ [−I_max, I_max] in 'regulate'. I stays where,
    with the trial output, both β and λ stand at their lower limit and e > 0, or both at their
    upper limit and e < 0. Below activation, and where A* is unknown, this is not called: I and u
    stay.
    Source: Åström and Hägglund, "Advanced PID Control" (2006), conditional integration.

    >>> from routekeel.operators.config import DEFAULT
    >>> one = np.ones(1, np.float32)
    >>> integral, u = pi_update(DEFAULT, one * np.float32(0.1), one * 1, one * 0.5, one * 0)
    >>> round(float(integral[0]), 6), round(float(u[0]), 6)
    (0.1, 0.14)
    """
    limit = f32(config.integral_max)
    low = -limit if config.pi_mode == "regulate" else ZERO
    trial = clip32(integral + error, low, limit)
    beta, rate = tightened(config, beta_0, rate_0, _output(config, error, trial))
    at_low = (beta == f32(config.beta_min)) & (rate == f32(config.lambda_min)) & (error > ZERO)
    at_high = (beta == f32(config.beta_max)) & (rate == f32(config.lambda_max)) & (error < ZERO)
    kept = np.where(at_low | at_high, integral, trial).astype(f32, copy=False)
    return kept, _output(config, error, kept)


def _output(config: RouterConfig, error: F32, integral: F32) -> F32:
    u = f32(config.k_p) * error + f32(config.k_i) * integral
    if config.pi_mode == "ceiling":
        u = np.where(u > ZERO, u, ZERO)
    return np.asarray(u, dtype=f32)
