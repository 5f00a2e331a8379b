"""A Weights record whose route came in half precision, with the route where readers look for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def with_full_route(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """The value with `w_hat` as float32 bytes, whichever precision was sent.

    float16 to float32 is exact; what was lost (relative error up to 2⁻¹¹) was lost by the worker.

    >>> half = np.array([0.25, 0.75], "<f2").tobytes()
    >>> np.frombuffer(with_full_route({"w_hat": b"", "w_hat_half": half})["w_hat"], "<f4")
    array([0.25, 0.75], dtype=float32)
    """
    half = value.get("w_hat_half")
    if half is None or value["w_hat"]:
        return value
    return {**value, "w_hat": np.frombuffer(half, "<f2").astype("<f4").tobytes()}
