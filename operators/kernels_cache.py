"""One entry point, one signature, compiled once per machine and source.

Numba's disk cache looks at the entry function's own file only; after a change in another kernel
file it would go on running the old code. So the entry closes over a digest of every function,
constant and intrinsic that it is made of, which numba makes part of the key. Where the folder
cannot be written numba falls back to NUMBA_CACHE_DIR or the user's cache folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any, cast

import numpy as np
from numba import njit, types

from routekeel.operators.kernels_lanes import COMPILED_OPTIONS, COMPILED_SOURCES


def _input(dtype: Any, ndim: int) -> Any:
    """Read-only, so that arrays over received bytes and arrays of one's own share a signature."""
    return types.Array(dtype, ndim, "C", readonly=True)


def _output(dtype: Any, ndim: int) -> Any:
    return types.Array(dtype, ndim, "C")


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


def _parts(code: CodeType, scope: dict[str, Any]) -> Iterator[str]:
    yield code.co_code.hex()
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _parts(constant, scope)
        else:
            yield repr(constant)
    for name in code.co_names:
        value = scope.get(name)
        if isinstance(value, int | float | np.floating):
            yield f"{name}={value!r}"
        else:
            yield name


def source_digest() -> int:
    """A positive 62-bit digest of all kernel code and the constants it reads."""
    digest = hashlib.blake2b(digest_size=8)
    for function in COMPILED_SOURCES:
        for part in _parts(function.__code__, function.__globals__):
            digest.update(part.encode())
            digest.update(b"\0")
    return int.from_bytes(digest.digest(), "little") >> 2 | 1


def compile_entry(make: Callable[[int], Callable[..., None]]) -> Callable[..., None]:
    """Compiles the function that `make` builds around the digest, or loads it from the cache."""
    entry = make(source_digest())
    try:
        compiled = njit(SIGNATURE, cache=True, **COMPILED_OPTIONS)(entry)
    except RuntimeError:
        # Neither the folder nor any cache folder can be written: compile for this process alone.
        compiled = njit(SIGNATURE, **COMPILED_OPTIONS)(entry)
    return cast("Callable[..., None]", compiled)
