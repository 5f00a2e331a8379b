"""Probed sensitivity of an MoE block: how far its output moves when its input is nudged.

The worker measures norms along K directions orthogonal to the token's drift; here they become
L⊥, G probe and L_para. Not probed is NaN, never a guess.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ProbeMetrics:
    """l_perp, g_probe, l_para: ratios of norms, ≥ 0, or NaN; directions: how many were usable."""

    l_perp: float
    g_probe: float
    l_para: float
    directions: int


def probe_metrics(
    dx: npt.ArrayLike,
    dy: npt.ArrayLike,
    dw: npt.ArrayLike,
    drift_dx: float = float("nan"),
    drift_dy: float = float("nan"),
) -> ProbeMetrics:
    """L⊥ = median_k ‖Δy_k‖/‖Δx_k‖, G probe = median_k ‖Δw_k‖/‖Δx_k‖, L_para = ‖Δy‖/‖Δx‖.

    dx, dy, dw: norms [K] of the perturbation, of the block's output and of the route, per
    direction u_k ⟂ (x_t − x_{t−1}), ‖Δx_k‖ = ε‖x‖. drift_dx, drift_dy: the same along the drift.
    A direction with a NaN, infinite or negative norm, or ‖Δx_k‖ = 0, is left out; none left, or
    K = 0, gives NaN. L⊥ < 1 is contraction. The median of an even K is the mean of the middle two.
    Raises ValueError where the lengths differ.

    >>> probe_metrics([1, 1, 2], [0.5, 0.25, 2], [0.1, 0.2, 0.2]).l_perp
    0.5
    """
    norms = [np.atleast_1d(np.asarray(each, dtype=np.float64)) for each in (dx, dy, dw)]
    if len({each.shape for each in norms}) != 1 or norms[0].ndim != 1:
        raise ValueError(f"dx, dy, dw must be [K] alike, got {[each.shape for each in norms]}")
    x, y, w = norms
    usable = np.isfinite(x) & np.isfinite(y) & np.isfinite(w) & (x > 0) & (y >= 0) & (w >= 0)
    along = drift_dy / drift_dx if drift_dx > 0 and drift_dy >= 0 else float("nan")
    return ProbeMetrics(
        l_perp=_median(y[usable] / x[usable]),
        g_probe=_median(w[usable] / x[usable]),
        l_para=float(along) if np.isfinite(along) else float("nan"),
        directions=int(usable.sum()),
    )


def _median(values: F64) -> float:
    return float(np.median(values)) if values.size else float("nan")
