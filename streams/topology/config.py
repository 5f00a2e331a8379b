"""What the topology needs to know, as one frozen value made from the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from routekeel.operators.buckets import BUCKETS, bucket
from routekeel.operators.config import RouterConfig
from routekeel.streams.topology.cadence import Cadence

TOKEN_ROWS_SALT = "token-rows"


@dataclass(frozen=True, eq=False)
class RouterGram:
    """W·Wᵀ of a model's routers: `gram` float32[N, E, E] by position, `index` layer id → position."""

    gram: npt.NDArray[np.float32]
    index: Mapping[int, int]


@dataclass(frozen=True)
class TopologyConfig:
    """Parameters of the topology. Times in µs; `router_grams` by (model, revision or '')."""

    control: RouterConfig = field(default_factory=RouterConfig)
    kernel: Literal["auto", "numba", "numpy"] = "auto"
    policy_version: int = 0
    policy_arm: str = "shadow"
    session_ttl_us: int = 3_600_000_000
    sessions_max: int = 100_000
    requests_max: int = 8
    event_time_skew_us: int = 300_000_000
    token_rows_share: float = 0.0
    cadence: Cadence = field(default_factory=Cadence)
    record_bytes_max: int = 16 * 2**20
    router_grams: Mapping[tuple[str, str], RouterGram] = field(default_factory=dict)

    def wants_token_rows(self, session_id: bytes) -> bool:
        """Whether this session is in the sample that gets per-token rows."""
        if self.token_rows_share <= 0:
            return False
        return bucket(TOKEN_ROWS_SALT, session_id.decode()) < self.token_rows_share * BUCKETS

    def router_gram(self, model: str, revision: str) -> RouterGram | None:
        """The Gram matrices for this model and revision, else for any revision of it."""
        return self.router_grams.get((model, revision)) or self.router_grams.get((model, ""))
