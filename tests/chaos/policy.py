"""The product's settings that a seed draws: how it checkpoints and batches, what it publishes, standbys.

Fast ones give a short run many borders to be hit at; the product's own are what is shipped. The draw has
a generator of its own, so that another setting here moves no fault.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import NamedTuple

from routekeel.streams.settings.tree import SinkSettings, WorkerSettings

WORKER, SINK = WorkerSettings(), SinkSettings()
CHECKPOINTS: Mapping[str, Mapping[str, object]] = {
    # Spelt out, since the systems of the tests have shorter ones.
    "shipped": {
        "worker.checkpoint_interval_s": WORKER.checkpoint_interval_s,
        "worker.checkpoint_share_max": WORKER.checkpoint_share_max,
        "worker.batch_records_max": WORKER.batch_records_max,
        "sink.batch_interval_s": SINK.batch_interval_s,
    },
    "fast": {
        "worker.checkpoint_interval_s": 0.5,
        "worker.checkpoint_share_max": 1e3,
        "worker.batch_records_max": 500,
        "sink.batch_interval_s": 0.3,
    },
}
SHIPPED_ROUTES = {
    "worker.weights_every_tokens": WORKER.weights_every_tokens,
    "worker.state_every_tokens": WORKER.state_every_tokens,
    "worker.weights_precision": WORKER.weights_precision,
}
ROUTES: Mapping[str, Mapping[str, object]] = {
    "shipped": SHIPPED_ROUTES,
    "every chunk": {"worker.weights_every_tokens": 1, "worker.state_every_tokens": 1},
    "half": SHIPPED_ROUTES | {"worker.weights_precision": "F16"},
    # With the logits of the feed about every fifth chunk, and the cadence seldom.
    "on change": {
        "worker.weights_every_tokens": 32,
        "worker.state_every_tokens": 128,
        "worker.weights_change": 4.0,
    },
}


class Policy(NamedTuple):
    """A seed's settings, by the names of their groups above."""

    checkpoints: str
    routes: str
    standbys: int

    def flags(self) -> dict[str, object]:
        """The settings, for every process of a run and for its oracle."""
        return {
            **CHECKPOINTS[self.checkpoints],
            **ROUTES[self.routes],
            "worker.standby_replicas": self.standbys,
        }

    def __str__(self) -> str:
        return f"checkpoints {self.checkpoints}, routes {self.routes}, standbys {self.standbys}"


def draw_policy(seed: int) -> Policy:
    """The settings of a seed."""
    rng = random.Random(f"settings {seed}")
    return Policy(rng.choice(list(CHECKPOINTS)), rng.choice(list(ROUTES)), rng.randrange(2))
