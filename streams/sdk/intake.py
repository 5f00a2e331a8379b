"""Logits of any array library as packed bytes, checked on the way.

This is half of what emit_logits costs. A float16 array is copied once and its finiteness is read
off the bit patterns: np.isfinite takes five times as long, since it works on halves one by one.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from routekeel.schemas.limits import EXPERTS_MAX, LAYERS_MAX, STEPS_MAX, VALUES_MAX
from routekeel.schemas.logits import pack
from routekeel.streams.sdk.refusal import (
    INVALID_SHAPE,
    NON_FINITE,
    OUT_OF_RANGE,
    UNKNOWN_DTYPE,
    Refused,
)

_F16 = np.dtype("<f2")
_F32 = np.dtype("<f4")
# Per width: the bits as unsigned and as signed integers, and infinity's pattern as each of them.
# Every NaN lies above the infinity of its sign.
_BITS: dict[int, tuple[np.dtype[Any], np.dtype[Any], int, int]] = {
    2: (np.dtype("<u2"), np.dtype("<i2"), 0xFC00, 0x7C00),
    4: (np.dtype("<u4"), np.dtype("<i4"), 0xFF800000, 0x7F800000),
}
_largest = np.maximum.reduce


def pack_logits(logits: Any, encoding: str, top_m: int) -> tuple[tuple[int, ...], bytes]:
    """The shape (T, L, E) and the bytes of `logits` in that encoding.

    `logits` is a NumPy array, or anything that NumPy can read from host memory (a torch CPU tensor,
    an MLX array, nested lists); bfloat16 is widened first. Raises Refused.
    """
    array = logits if type(logits) is np.ndarray else host_array(logits)
    shape = array.shape
    if len(shape) != 3:
        raise Refused(INVALID_SHAPE, f"logits must be [T, L, E], got the shape {shape}")
    steps, layers, experts = shape
    if not (0 < steps <= STEPS_MAX and 0 < layers <= LAYERS_MAX and 0 < experts <= EXPERTS_MAX):
        raise Refused(
            INVALID_SHAPE,
            f"logits have the shape {shape}; the limits are 1…{STEPS_MAX} tokens, "
            f"1…{LAYERS_MAX} layers and 1…{EXPERTS_MAX} experts",
        )
    if steps * layers * experts > VALUES_MAX:
        raise Refused(
            INVALID_SHAPE, f"logits have the shape {shape}: more than {VALUES_MAX} values"
        )
    if encoding == "TOPM_F16":
        return shape, _pack_topm(array, top_m)
    dtype = _F16 if encoding == "F16" else _F32
    if array.dtype == dtype:
        data = array.tobytes()
        if not _finite(data, dtype.itemsize):
            raise Refused(NON_FINITE, "logits hold NaN or infinity")
        return shape, data
    array = _real(array)
    with np.errstate(over="ignore", invalid="ignore"):
        data = array.astype(dtype).tobytes()
    if not _finite(data, dtype.itemsize):
        raise _not_representable(array, dtype)
    return shape, data


def host_array(values: Any) -> npt.NDArray[Any]:
    """Anything array-like as a NumPy array, without importing its library. Raises Refused."""
    kind = str(getattr(values, "dtype", ""))
    try:
        if kind.endswith("bfloat16"):
            values = _widened(values)
        if hasattr(values, "detach"):
            values = values.detach()
        return np.asarray(values)
    except Exception as error:  # whatever the array's library raises: a device, a layout, a dtype
        raise Refused(
            UNKNOWN_DTYPE,
            f"{type(values).__module__}.{type(values).__name__} of {kind or 'unknown dtype'} "
            f"cannot be read from host memory: {error}",
        ) from error


def _widened(values: Any) -> Any:
    """bfloat16 as float32, by the means of the library that made it (which is loaded then)."""
    if hasattr(values, "detach"):
        return values.detach().float()
    mlx = sys.modules.get("mlx.core")
    if mlx is not None and isinstance(values, mlx.array):
        return values.astype(mlx.float32)
    return np.asarray(values).astype(np.float32)


def _finite(data: bytes, width: int) -> bool:
    unsigned, signed, negative_infinity, positive_infinity = _BITS[width]
    bits = np.frombuffer(data, unsigned)
    return bool(
        _largest(bits) < negative_infinity and _largest(bits.view(signed)) < positive_infinity
    )


def _real(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if array.dtype.kind in "fiu":
        return array
    if array.dtype.name == "bfloat16":
        return array.astype(np.float32)
    raise Refused(UNKNOWN_DTYPE, f"logits must be real numbers, got {array.dtype}")


def _not_representable(array: npt.NDArray[Any], dtype: np.dtype[Any]) -> Refused:
    if np.isfinite(array).all():
        return Refused(OUT_OF_RANGE, f"a logit is beyond the range of {dtype.name}")
    return Refused(NON_FINITE, "logits hold NaN or infinity")


def _pack_topm(array: npt.NDArray[Any], top_m: int) -> bytes:
    array = _real(array)
    if not np.isfinite(array).all():
        raise Refused(NON_FINITE, "logits hold NaN or infinity")
    try:
        return pack(array, "TOPM_F16", min(top_m, array.shape[2]))
    except ValueError as error:
        raise Refused(OUT_OF_RANGE, str(error)) from error
