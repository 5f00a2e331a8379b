"""When a session's route is published, and when its whole state goes with it.

At 48 layers × 128 experts a route is 24 KB and a state 50 KB, four times the logits of a token: after
every token they would outweigh the input. Consumers need a recent route, replay a state now and then.
The rule depends on positions and on the state alone, so a replay publishes at the same records.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

NOTHING, ROUTE, ROUTE_AND_STATE = range(3)


@dataclass(frozen=True)
class Cadence:
    """The settings. A count of 0 never fires; `change` is ε in ‖ŵ − ŵ_published‖₂, NaN for off.

    A session's first chunk always publishes both. `precision` is that of the published ŵ; the state
    is exact whatever it is.
    """

    every_tokens: int = 8
    state_every_tokens: int = 64
    change: float = math.nan
    precision: Literal["F32", "F16"] = "F32"

    @property
    def follows_change(self) -> bool:
        """Whether drift is kept at all."""
        return not math.isnan(self.change)

    def decide(self, start: int, steps: int, is_first: bool, drift: np.float32) -> int:
        """What to publish after a chunk of `steps` tokens from position `start` on.

        `drift` bounds how far any layer's ŵ has moved since it was published last: the sum of its
        steps ‖Δŵ‖₂, by the triangle inequality.

        >>> cadence = Cadence(every_tokens=4, state_every_tokens=8)
        >>> [cadence.decide(start, 2, False, np.float32(0)) for start in (0, 2, 4, 6)]
        [0, 1, 0, 2]
        """
        if is_first or crosses(start, steps, self.state_every_tokens):
            return ROUTE_AND_STATE
        if crosses(start, steps, self.every_tokens) or drift > np.float32(self.change):
            return ROUTE
        return NOTHING


def crosses(start: int, steps: int, every: int) -> bool:
    """Whether a multiple of `every` tokens is completed by the positions start … start + steps − 1.

    >>> [crosses(start, 3, 8) for start in (0, 3, 6, 13)]
    [False, False, True, True]
    """
    return every > 0 and (start + steps) // every > start // every


def moved(mean_steps: npt.NDArray[np.float32], tokens: npt.NDArray[np.float32]) -> np.float32:
    """The largest Σ‖Δŵ‖ of a chunk's layers, from each layer's mean and count of tokens (float32[L]).

    A layer's first token has no step: NaN counts as 0.
    """
    sums = mean_steps * tokens
    return np.float32(np.where(np.isnan(sums), np.float32(0), sums).max(initial=np.float32(0)))
