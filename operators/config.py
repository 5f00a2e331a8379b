"""Parameters of the control law: one frozen value, checked once when it is made.

Everything that a policy may change is here and nowhere else; a policy is a RouterConfig with a
version. The two presets differ in one number, the knee of the schedule.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

PiMode = Literal["ceiling", "regulate"]

# Positions of the parameters in the packed array that the kernels read.
PACKED = (
    "beta_min",
    "beta_max",
    "lambda_min",
    "lambda_max",
    "activation",
    "g_target",
    "k_p",
    "k_i",
    "integral_max",
    "dead_band",
    "pi_mode",
    "schedule_knee",
    "spike_distance",
    "spike_count",
    "hold_ticks",
    "hysteresis",
    "alpha_predictive",
    "alpha_paraphrase",
    "alpha_specification",
    "alpha_routing",
)
# Counters live in float32 state, exact up to 2^24; this leaves room and bounds a mistyped policy.
COUNTER_MAX = 1_000_000


class ConfigError(ValueError):
    """A parameter, or a pair of them, that the control law cannot run with."""


@dataclass(frozen=True)
class RouterConfig:
    """The control law's parameters (docs: "One token at one layer").

    beta_min, beta_max: limits of the inverse temperature β (1), 0 < beta_min ≤ beta_max.
    lambda_min, lambda_max: limits of the moving average's rate λ (1), within [0, 1].
    activation: A* from which the PI controller acts, [0, 1].
    g_target: the PI's target for λβ‖Σ‖₂ in logit space, (0, ½]·beta_max at most.
    k_p, k_i, integral_max: PI gains (per unit of G) and the integral's limit, ≥ 0.
    dead_band: half-width around the target within which the error counts as 0, ≥ 0.
    pi_mode: 'ceiling' only tightens; 'regulate' pulls G to the target from both sides.
    schedule_knee: A* at which the schedule reaches its lower limits, (0, 1].
    spike_distance: ‖w − ŵ_prev‖₂ above which a token is a spike, (0, √2).
    spike_count, hold_ticks: spikes in a row that trigger a hold, and its length in tokens.
    hysteresis: logits by which a new winner must lead before the route's winner changes; 0 = off.
    alpha_*: weights of the ambiguity components, ≥ 0; routing is 0 so that A* is exogenous.

    Raises ConfigError on a value outside its range, naming the parameter.

    >>> RouterConfig().beta_max
    1.65
    >>> RouterConfig(spike_distance=1.5)
    Traceback (most recent call last):
    ...
    routekeel.operators.config.ConfigError: spike_distance must be in (0, sqrt 2), got 1.5
    """

    beta_min: float = 0.85
    beta_max: float = 1.65
    lambda_min: float = 0.25
    lambda_max: float = 0.75
    activation: float = 0.7
    g_target: float = 0.1
    k_p: float = 1.2
    k_i: float = 0.2
    integral_max: float = 6.0
    dead_band: float = 0.0
    pi_mode: PiMode = "ceiling"
    schedule_knee: float = 1.0
    spike_distance: float = 0.5
    spike_count: int = 3
    hold_ticks: int = 5
    hysteresis: float = 0.0
    alpha_predictive: float = 1.0
    alpha_paraphrase: float = 1.0
    alpha_specification: float = 1.0
    alpha_routing: float = 0.0

    def __post_init__(self) -> None:
        for name in PACKED:
            value = getattr(self, name)
            if name == "pi_mode":
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ConfigError(f"{name} must be a number, got {value!r}")
            if not math.isfinite(value):
                raise ConfigError(f"{name} must be finite, got {value!r}")
        _check(self.pi_mode in ("ceiling", "regulate"), "pi_mode", "ceiling or regulate", self)
        _check(self.beta_min > 0, "beta_min", "> 0", self)
        _check(self.beta_min <= self.beta_max, "beta_max", f">= beta_min {self.beta_min}", self)
        _check(self.beta_max <= 100, "beta_max", "<= 100", self)
        _check(0 <= self.lambda_min <= 1, "lambda_min", "in [0, 1]", self)
        _check(self.lambda_min <= self.lambda_max <= 1, "lambda_max", "in [lambda_min, 1]", self)
        _check(0 <= self.activation <= 1, "activation", "in [0, 1]", self)
        _check(0 < self.g_target <= 0.5 * self.beta_max, "g_target", "in (0, beta_max/2]", self)
        for name in ("k_p", "k_i", "integral_max", "dead_band", "hysteresis"):
            _check(getattr(self, name) >= 0, name, ">= 0", self)
        _check(0 < self.schedule_knee <= 1, "schedule_knee", "in (0, 1]", self)
        _check(0 < self.spike_distance < math.sqrt(2), "spike_distance", "in (0, sqrt 2)", self)
        for name in ("spike_count", "hold_ticks"):
            value = getattr(self, name)
            _check(isinstance(value, int), name, "an integer", self)
            _check(1 <= value <= COUNTER_MAX, name, f"in [1, {COUNTER_MAX}]", self)
        for name in PACKED[16:]:
            _check(getattr(self, name) >= 0, name, ">= 0", self)

    @cached_property
    def packed(self) -> npt.NDArray[np.float32]:
        """The parameters as float32[20] in the order of PACKED ('regulate' is 1, 'ceiling' 0)."""
        values = [
            float(self.pi_mode == "regulate") if name == "pi_mode" else float(getattr(self, name))
            for name in PACKED
        ]
        packed = np.array(values, dtype=np.float32)
        packed.setflags(write=False)
        return packed

    def to_dict(self) -> dict[str, Any]:
        """All parameters by name, as JSON-ready values.

        >>> RouterConfig.from_dict(RouterConfig().to_dict()) == RouterConfig()
        True
        """
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RouterConfig:
        """The inverse of to_dict; missing names take their defaults.

        Raises ConfigError on a name that is not a parameter.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ConfigError(f"unknown parameter: {', '.join(unknown)}")
        return cls(**values)

    def with_changes(self, **changes: float | int | str) -> RouterConfig:
        """A copy with some parameters changed, checked anew.

        >>> RouterConfig().with_changes(schedule_knee=0.7) == STRICT
        True
        """
        return replace(self, **cast("dict[str, Any]", changes))


def _check(holds: bool, name: str, expected: str, config: RouterConfig) -> None:
    if not holds:
        raise ConfigError(f"{name} must be {expected}, got {getattr(config, name)!r}")


DEFAULT = RouterConfig()
# The schedule reaches its lower limits where the PI wakes up, so that the PI has nothing to fight.
STRICT = RouterConfig(schedule_knee=0.7)
PRESETS = {"default": DEFAULT, "strict": STRICT}
