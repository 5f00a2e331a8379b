"""routekeel: live, exact and replayable router telemetry for Mixture-of-Experts inference.

The public face. Names are imported when they are first used, so that `import routekeel` costs
nothing in a program that only wants the version.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from routekeel.streams.history.frames import telemetry_frame as telemetry_frame
    from routekeel.streams.history.frames import weights_frame as weights_frame
    from routekeel.streams.sdk.config import SdkConfig as SdkConfig
    from routekeel.streams.sdk.producer import Producer as Producer
    from routekeel.streams.sdk.read import read_logits as read_logits
    from routekeel.streams.sdk.read import read_telemetry as read_telemetry
    from routekeel.streams.sdk.read import read_weights as read_weights
    from routekeel.streams.sdk.stats import ProducerStats as ProducerStats

__version__ = "0.1.0"

_HOMES = {
    "Producer": "routekeel.streams.sdk.producer",
    "ProducerStats": "routekeel.streams.sdk.stats",
    "SdkConfig": "routekeel.streams.sdk.config",
    "read_logits": "routekeel.streams.sdk.read",
    "read_telemetry": "routekeel.streams.sdk.read",
    "read_weights": "routekeel.streams.sdk.read",
    "telemetry_frame": "routekeel.streams.history.frames",
    "weights_frame": "routekeel.streams.history.frames",
}
__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
