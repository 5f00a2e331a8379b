"""The control law once more, in float64 and straight from its text: the tests' oracle.

It shares no code with routekeel.operators; eigenvalues come from numpy.linalg, sums from NumPy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]


def softmax(x: F64) -> F64:
    e = np.exp(x - x.max())
    return e / e.sum()


def covariance(w: F64) -> F64:
    return np.diag(w) - np.outer(w, w)


def operator_norm(w: F64) -> float:
    return max(0.0, float(np.linalg.eigvalsh(covariance(w))[-1]))


@dataclass
class LayerState:
    """One layer of one session; w_hat and z are None before the first token."""

    w_hat: F64 | None = None
    z: F64 | None = None
    integral: float = 0.0
    u_prev: float = 0.0
    spike_run: int = 0
    hold_left: int = 0


def tightened(c: Mapping[str, Any], beta_0: float, rate_0: float, u: float) -> tuple[float, float]:
    with np.errstate(over="ignore"):
        factor = float(np.exp(-u))
    beta = min(max(beta_0 * factor, c["beta_min"]), c["beta_max"])
    rate = min(max(rate_0 * factor, c["lambda_min"]), c["lambda_max"])
    return beta, rate


def pi(c: Mapping[str, Any], s: LayerState, z: F64, beta_0: float, rate_0: float) -> float:
    """Advances the PI part of the state by one token at or above activation; returns the error."""
    ceiling = c["pi_mode"] == "ceiling"
    beta_1, rate_1 = tightened(c, beta_0, rate_0, s.u_prev)
    error = rate_1 * beta_1 * operator_norm(softmax(beta_1 * z)) - c["g_target"]
    if abs(error) < c["dead_band"]:
        error = 0.0

    def output(integral: float) -> float:
        u = c["k_p"] * error + c["k_i"] * integral
        return max(u, 0.0) if ceiling else u

    low = 0.0 if ceiling else -c["integral_max"]
    trial = min(max(s.integral + error, low), c["integral_max"])
    limits = tightened(c, beta_0, rate_0, output(trial))
    winds_down = limits == (c["beta_min"], c["lambda_min"]) and error > 0
    winds_up = limits == (c["beta_max"], c["lambda_max"]) and error < 0
    if not (winds_down or winds_up):
        s.integral = trial
    s.u_prev = output(s.integral)
    return error


def guard(c: Mapping[str, Any], s: LayerState, distance: float | None) -> tuple[bool, bool]:
    """Advances the guard by one token of known ambiguity: (spike, held)."""
    if s.hold_left > 0:
        s.hold_left -= 1
        return False, True
    if distance is None:
        return False, False
    spike = distance > c["spike_distance"]
    s.spike_run = s.spike_run + 1 if spike else 0
    if s.spike_run == c["spike_count"]:
        s.spike_run, s.hold_left = 0, c["hold_ticks"]
    return spike, False


def step(c: Mapping[str, Any], s: LayerState, z: F64, a_star: float | None) -> dict[str, Any]:
    """One token at one layer: advances the state, returns every intermediate value."""
    beta = rate = 1.0
    error = 0.0
    if a_star is not None:
        clear = min(max(1.0 - a_star / c["schedule_knee"], 0.0), 1.0)
        beta_0 = c["beta_min"] + (c["beta_max"] - c["beta_min"]) * clear
        rate_0 = c["lambda_min"] + (c["lambda_max"] - c["lambda_min"]) * clear
        u = 0.0
        if a_star >= c["activation"]:
            error = pi(c, s, z, beta_0, rate_0)
            u = s.u_prev
        beta, rate = tightened(c, beta_0, rate_0, u)
    w = softmax(beta * z)
    first = s.w_hat is None
    distance = None if s.w_hat is None else float(np.linalg.norm(w - s.w_hat))
    spike = held = False
    if a_star is not None:
        spike, held = guard(c, s, distance)
        if held:
            beta, rate = c["beta_min"], c["lambda_min"]
            w = softmax(beta * z)
    effective = 1.0 if first else rate
    w_hat = w if s.w_hat is None else (1.0 - rate) * s.w_hat + rate * w
    w_hat = w_hat / w_hat.sum()
    base = softmax(z)
    positive = base[base > 0]
    result: dict[str, Any] = {
        "beta": beta,
        "lambda": rate,
        "lambda_effective": effective,
        "w_hat": w_hat,
        "g_base": operator_norm(base),
        "g_controlled": effective * beta * operator_norm(w),
        "grad_norm": effective * beta * float(np.linalg.norm(covariance(w))),
        "grad_norm_base": float(np.linalg.norm(covariance(base))),
        "route_entropy": float(-(positive * np.log(positive)).sum()),
        "participation": float(1.0 / (w_hat**2).sum()),
        "vertex_distance": float(1.0 - w_hat.max()),
        "pi_error": error,
        "pi_integral": s.integral,
        "pi_output": s.u_prev,
        "spike": spike,
        "held": held,
        "spike_run": s.spike_run,
        "hold_left": s.hold_left,
        "distance": distance,
        "route_shift": float(np.linalg.norm(w_hat - base)),
    }
    result.update(_against_previous(s, z, base, w_hat))
    s.w_hat, s.z = w_hat, z
    return result


def _against_previous(s: LayerState, z: F64, base: F64, w_hat: F64) -> dict[str, Any]:
    names = ("self_similarity", "self_similarity_base", "winner_flip_controlled", "delta_w_hat")
    if s.w_hat is None or s.z is None:
        return dict.fromkeys((*names, "winner_flip_base", "g_secant_base", "g_secant_controlled"))
    old = softmax(s.z)
    step_norm = float(np.linalg.norm(z - s.z))
    moved = float(np.linalg.norm(w_hat - s.w_hat))
    secants = step_norm >= 1e-6
    return {
        "self_similarity": float(np.sqrt(w_hat * s.w_hat).sum()),
        "self_similarity_base": float(np.sqrt(base * old).sum()),
        "winner_flip_controlled": bool(w_hat.argmax() != s.w_hat.argmax()),
        "winner_flip_base": bool(z.argmax() != s.z.argmax()),
        "delta_w_hat": moved,
        "g_secant_base": float(np.linalg.norm(base - old)) / step_norm if secants else None,
        "g_secant_controlled": moved / step_norm if secants else None,
    }
