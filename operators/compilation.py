"""Compiled units: functions that numba compiles into one entry, cached once per machine and source.

Numba's disk cache looks at the entry function's own file only; after a change in another file of
the unit it would go on running the old code. So an entry closes over a digest of every function,
constant and intrinsic that it is made of, which numba makes part of the key. Where the folder
cannot be written numba falls back to NUMBA_CACHE_DIR or the user's cache folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

F = TypeVar("F", bound=Callable[..., Any])

# Strict arithmetic, no GIL, and no reference counting: compiled code here allocates nothing, and
# counting the arrays that its functions hand on cost a tenth of a kernel's time.
OPTIONS = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True, "_nrt": False}


def array_in(dtype: Any, ndim: int) -> Any:
    """Numba's type of an argument that is read: an array of any shape with ndim ≥ 1 axes, C order.

    Read-only, so that arrays over received bytes and arrays of one's own share a signature.
    """
    return types.Array(dtype, ndim, "C", readonly=True)


def array_out(dtype: Any, ndim: int) -> Any:
    """Numba's type of an argument that is written: an array of any shape with ndim ≥ 1 axes, C order."""
    return types.Array(dtype, ndim, "C")


class CompiledUnit:
    """Collects the functions of a unit by its decorators; `entry` compiles one that is called."""

    def __init__(self) -> None:
        self._sources: list[Callable[..., Any]] = []

    def compiled(self, function: F) -> F:
        """`numba.njit` for a function that other compiled functions call."""
        self._sources.append(function)
        return cast(F, njit(**OPTIONS, no_cpython_wrapper=True)(function))

    def inlined(self, function: F) -> F:
        """`compiled`, and put where it is called: for what every row runs through.

        An array goes to a function as seven words, which costs as much as a small function's work.
        """
        self._sources.append(function)
        options = {**OPTIONS, "no_cpython_wrapper": True, "forceinline": True}
        return cast(F, njit(**options)(function))

    def operation(self, function: Callable[..., Any]) -> Any:
        """`numba.extending.intrinsic`, known to the digest."""
        self._sources.append(function)
        return intrinsic(function)

    def entry(self, signature: Any, make: Callable[[int], Callable[..., Any]]) -> Any:
        """Compiles the function that `make` builds around the digest, or loads it from the cache."""
        entry = make(self.digest())
        try:
            return njit(signature, cache=True, **OPTIONS)(entry)
        except RuntimeError:
            # Neither the folder nor any cache folder can be written: for this process alone.
            return njit(signature, **OPTIONS)(entry)

    def digest(self) -> int:
        """A positive 62-bit digest of all code of the unit and the constants it reads."""
        digest = hashlib.blake2b(digest_size=8)
        for function in self._sources:
            for part in _parts(function.__code__, function.__globals__):
                digest.update(part.encode())
                digest.update(b"\0")
        return int.from_bytes(digest.digest(), "little") >> 2 | 1


def _parts(code: CodeType, scope: dict[str, Any]) -> Iterator[str]:
    yield code.co_code.hex()
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _parts(constant, scope)
        else:
            yield repr(constant)
    for name in code.co_names:
        value = scope.get(name)
        if isinstance(value, int | float | np.floating | np.integer):
            yield f"{name}={value!r}"
        else:
            yield name
