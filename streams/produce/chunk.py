"""One chunk on its way to the producer: what emit_logits takes, and where it came from."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt


class Chunk(NamedTuple):
    """`logits` is [T, L, E]; `fields` are the keyword arguments of Producer.emit_logits.

    `origin` names the place in the source ("line 12"), for messages.
    """

    session_id: str
    logits: npt.NDArray[np.floating[Any]]
    fields: dict[str, Any]
    origin: str = ""
