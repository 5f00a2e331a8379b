"""Many stretches of bytes copied from one buffer into another in one call."""

from __future__ import annotations

from typing import Any

from numba import types

from routekeel.operators.compilation import array_in, array_out
from routekeel.streams.wire.primitives import WIRE
from routekeel.streams.wire.vectors import copy_block, prefetch_block

AHEAD, ASKED_FOR = 8, 1024
"""So many stretches ahead their first bytes are asked for: they may lie anywhere."""


def _copy(source_digest: int) -> Any:
    def run(source: Any, starts: Any, sizes: Any, target: Any, to: Any) -> Any:
        """target[to[i] : to[i] + sizes[i]] = source[starts[i] : starts[i] + sizes[i]], none overlapping."""
        if source_digest != 0:
            for index in range(starts.shape[0]):
                if index + AHEAD < starts.shape[0]:
                    size = min(sizes[index + AHEAD], ASKED_FOR)
                    prefetch_block(source, starts[index + AHEAD], size)
                copy_block(source, starts[index], sizes[index], target, to[index])

    return run


_I64S = array_in(types.int64, 1)
copy_spans = WIRE.entry(
    types.void(array_in(types.uint8, 1), _I64S, _I64S, array_out(types.uint8, 1), _I64S), _copy
)
