"""The guard against thrashing: after several spikes in a row the route is held for a while."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from routekeel.operators.arithmetic import F32, ONE, ZERO, f32
from routekeel.operators.config import RouterConfig

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class GuardStep:
    """spike and held flags of this token, and the counters after it; all [n]."""

    spike: Flags
    held: Flags
    spike_run: F32
    hold_left: F32


def guard_step(config: RouterConfig, distance: F32, spike_run: F32, hold_left: F32) -> GuardStep:
    """One token of the guard.

    distance: f32[n] ‖w − ŵ_prev‖₂ in [0, √2], NaN on the first token, which counts as nothing.
    Where hold_left > 0 it falls by one, this token is held (β_min, λ_min), spikes are not counted.
    Else distance > spike_distance is a spike and extends the run, anything less ends it; the run
    that reaches spike_count sets hold_left = hold_ticks from the next token on, and starts anew.

    >>> from routekeel.operators.config import DEFAULT
    >>> far, two, none = (np.array([x], np.float32) for x in (0.9, 2, 0))
    >>> guard_step(DEFAULT, far, two, none).hold_left.tolist()
    [5.0]
    """
    held = hold_left > ZERO
    counts = ~held & ~np.isnan(distance)
    spike = counts & (distance > f32(config.spike_distance))
    run = np.where(spike, spike_run + ONE, np.where(counts, ZERO, spike_run))
    triggers = counts & (run >= f32(config.spike_count))
    left = np.where(held, hold_left - ONE, np.where(triggers, f32(config.hold_ticks), hold_left))
    run = np.where(triggers, ZERO, run)
    return GuardStep(spike, held, run.astype(f32), left.astype(f32))
