"""Router logits to bytes and back, in the three encodings of RouterLogits.

Dense F32 and F16, and TOPM_F16 for layers with many experts: per (token, layer) the m largest
logits (float16, descending), their expert ids (uint16), the logsumexp of the rest (float32).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

F32Array = npt.NDArray[np.float32]
FLOAT16_MAX = 65504.0
EXPERTS_MAX = 65536
_DENSE: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2")}


def row_bytes(experts: int, encoding: str, top_m: int = 0) -> int:
    """Bytes of one (token, layer) row. Raises ValueError for an unknown encoding or a bad top_m.

    >>> row_bytes(128, "F16"), row_bytes(128, "TOPM_F16", 8)
    (256, 36)
    """
    dense = _DENSE.get(encoding)
    if dense is not None:
        return dense.itemsize * experts
    return _topm_dtype(experts, encoding, top_m).itemsize


def pack(logits: npt.NDArray[Any], encoding: str, top_m: int = 0) -> bytes:
    """Logits [T, L, E] (any real dtype) as bytes: little-endian, C order, token-major.

    F16 rounds to the nearest float16. Raises ValueError for NaN or infinity, for a logit that
    float16 cannot hold (|z| > 65504), for a shape that is not three-dimensional, an unknown
    encoding, or top_m outside 1…E.

    >>> z = np.array([[[1.0, -2.0, 0.5, 0.0]]])
    >>> unpack(pack(z, "F16"), 1, 1, 4, "F16").tolist()
    [[[1.0, -2.0, 0.5, 0.0]]]
    """
    logits = np.asarray(logits)
    if logits.ndim != 3:
        raise ValueError(f"logits must be [T, L, E], got the shape {logits.shape}")
    if logits.dtype.kind not in "fiu":
        raise ValueError(f"logits must be real numbers, got {logits.dtype}")
    if not np.isfinite(logits).all():
        raise ValueError("logits hold NaN or infinity")
    dense = _DENSE.get(encoding)
    if dense is None:
        return _pack_topm(logits, _topm_dtype(logits.shape[2], encoding, top_m))
    return _narrow(logits, dense).tobytes()


def unpack(
    data: bytes, steps: int, layers: int, experts: int, encoding: str, top_m: int = 0
) -> F32Array:
    """Bytes as logits, float32[T, L, E].

    Non-finite values come back as they are, and a TOPM_F16 row whose expert ids repeat or do not
    exist comes back as NaN: the caller refuses both by one look at `isfinite`. Raises ValueError
    where the length does not fit, the encoding is unknown, or top_m is outside 1…E.

    TOPM_F16 is an approximation: the experts outside the m largest share the rest's logsumexp
    evenly, z_rest = lse_rest − ln(E − m). The softmax weights of the m largest and of the rest
    together are kept; the rest is the most even one, so the route's entropy is an upper bound.

    >>> z = np.array([[[3.0, 2.0, 0.0, 0.0]]])
    >>> unpack(pack(z, "TOPM_F16", 2), 1, 1, 4, "TOPM_F16", 2).round(3).tolist()
    [[[3.0, 2.0, 0.0, 0.0]]]
    """
    expected = steps * layers * row_bytes(experts, encoding, top_m)
    if len(data) != expected:
        raise ValueError(
            f"{len(data)} bytes of logits; {steps} tokens, {layers} layers and {experts} experts "
            f"as {encoding} take {expected}"
        )
    dense = _DENSE.get(encoding)
    if dense is None:
        flat = _unpack_topm(data, experts, _topm_dtype(experts, encoding, top_m))
    else:
        flat = np.frombuffer(data, dense).astype(np.float32)
    return flat.reshape(steps, layers, experts)


def _topm_dtype(experts: int, encoding: str, top_m: int) -> np.dtype[np.void]:
    if encoding != "TOPM_F16":
        raise ValueError(f"unknown encoding {encoding!r}; it is one of F32, F16, TOPM_F16")
    if not 1 <= top_m <= experts or experts > EXPERTS_MAX:
        raise ValueError(f"top_m is {top_m}, it must be in 1…E with E = {experts} ≤ {EXPERTS_MAX}")
    return np.dtype([("top", "<f2", (top_m,)), ("ids", "<u2", (top_m,)), ("rest", "<f4")])


def _narrow(logits: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    with np.errstate(over="ignore"):
        narrow = logits.astype(dtype)
    if not np.isfinite(narrow).all():
        limit = FLOAT16_MAX if dtype.itemsize == 2 else float(np.finfo(np.float32).max)
        raise ValueError(f"a logit is beyond ±{limit:g}, which {dtype.name} cannot hold")
    return narrow


def _pack_topm(logits: npt.NDArray[Any], dtype: np.dtype[Any]) -> bytes:
    experts, top_m = logits.shape[2], dtype["top"].shape[0]
    flat = logits.reshape(-1, experts).astype(np.float64)
    # A stable sort: among equal logits the lower expert id comes first, on every machine.
    order = np.argsort(-flat, axis=1, kind="stable")
    ordered = np.take_along_axis(flat, order, axis=1)
    rows = np.empty(len(flat), dtype)
    rows["top"] = _narrow(ordered[:, :top_m], np.dtype("<f2"))
    rows["ids"] = order[:, :top_m]
    rows["rest"] = -np.inf
    if top_m < experts and len(flat):
        rest = ordered[:, top_m:]
        peak = rest[:, :1]
        rows["rest"] = _narrow(
            peak[:, 0] + np.log(np.exp(rest - peak).sum(axis=1)), np.dtype("<f4")
        )
    return rows.tobytes()


def _unpack_topm(data: bytes, experts: int, dtype: np.dtype[Any]) -> F32Array:
    top_m = dtype["top"].shape[0]
    rows = np.frombuffer(data, dtype)
    ids = rows["ids"].astype(np.intp)
    ordered = np.sort(ids, axis=1)
    bad = (ordered[:, -1] >= experts) | (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)
    if top_m < experts:
        share = rows["rest"] - np.float32(np.log(experts - top_m))
    else:
        share = np.zeros(len(rows), np.float32)
    flat = np.repeat(share[:, None], experts, axis=1)
    np.put_along_axis(flat, np.minimum(ids, experts - 1), rows["top"].astype(np.float32), axis=1)
    flat[bad] = np.nan
    return flat
