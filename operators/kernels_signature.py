"""The compiled kernel's signature: one entry point with one, compiled once per machine and source."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from numba import types

from routekeel.operators.compilation import array_in as _input
from routekeel.operators.compilation import array_out as _output
from routekeel.operators.kernels_lanes import KERNEL

_F32, _I32, _I64, _U8 = types.float32, types.int32, types.int64, types.uint8
SIGNATURE = types.void(
    _input(_F32, 1),  # cfg
    _output(_F32, 1),  # arena
    _I64,  # width
    _I64,  # E
    _input(_I64, 2),  # table
    _input(_I32, 1),  # slots
    _input(_I32, 1),  # gram_index
    _input(_F32, 1),  # logits
    _input(_U8, 1),  # apply
    _input(_F32, 2),  # ambiguity
    _input(_F32, 1),  # gram
    _output(_F32, 2),  # layer_out
    _output(_I32, 1),  # loads
    _output(_F32, 2),  # route
    _output(_F32, 2),  # chunk
    _output(_U8, 1),  # mask
    _output(_F32, 2),  # rows
    _output(_F32, 2),  # row_w_base
    _output(_F32, 2),  # row_w_hat
    _output(_F32, 1),  # buffer
    _I64,  # layers_max
    _output(_F32, 2),  # state
)


def compile_entry(make: Callable[[int], Callable[..., None]]) -> Callable[..., None]:
    """Compiles the kernel around the function that `make` builds, or loads it from the cache."""
    return cast("Callable[..., None]", KERNEL.entry(SIGNATURE, make))
