"""Short ways for tests to drive operators.step: one session, rows by column name."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from routekeel.operators.config import DEFAULT, RouterConfig
from routekeel.operators.contract import BatchOutput, Chunk
from routekeel.operators.state import RouterState
from routekeel.operators.step import Kernel, step

KERNELS: tuple[Kernel, ...] = ("numba", "numpy")
F32 = npt.NDArray[np.float32]


def ambiguity(values: Any) -> F32:
    """A* through its first component: f32[T, 3]; None or NaN is unknown."""
    supplied = np.full((len(values), 3), np.nan, dtype=np.float32)
    supplied[:, 0] = [np.nan if value is None else value for value in values]
    return supplied


def drive(
    z: Any,
    a_star: Any,
    config: RouterConfig = DEFAULT,
    kernel: Kernel = "numba",
    state: RouterState | None = None,
    **chunk: Any,
) -> tuple[RouterState, BatchOutput]:
    """Rows z [T, E] (one layer) or [T, L, E] through a session."""
    logits = np.asarray(z, dtype=np.float32)
    if logits.ndim == 2:
        logits = logits[:, None, :]
    if state is None:
        state = RouterState.initial(logits.shape[1], logits.shape[2])
    supplied = ambiguity(np.broadcast_to(np.asarray(a_star, dtype=object), logits.shape[:1]))
    return step(config, state, Chunk(logits, supplied, **chunk), kernel=kernel)
