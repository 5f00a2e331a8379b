"""What a caller may say beside the logits, checked and laid out as the record's nullable fields.

A value the stream would refuse is refused here, at its source, where the caller's log says why.
"""

from __future__ import annotations

import difflib
import struct
from collections.abc import Mapping
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from routekeel.schemas.limits import LAYERS_MAX, TEXT_BYTES_MAX
from routekeel.schemas.records.router_logits import PROBE_FIELDS
from routekeel.streams.sdk.encode import NO_OPTIONAL, tail
from routekeel.streams.sdk.refusal import INVALID_FIELD, Refused

INT_MAX = 2**31 - 1
LONG_MAX = 2**63 - 1
FLOAT32_MAX = float(np.finfo(np.float32).max)
AMBIGUITY_COMPONENTS = ("predictive", "paraphrase", "specification")
_FLOAT = struct.Struct("<f")
_F32 = np.dtype("<f4")
_INFINITY = float("inf")
_PROBE_NAMES = frozenset(field.name for field in PROBE_FIELDS)


class OptionalFields(TypedDict, total=False):
    """What may be said about a chunk beside its logits; None and absent are the same.

    token_ids: int[T]. They reveal text, so they are only sent when given.
    token_entropy: float or float[T], nats ≥ 0 or NaN, of the next-token distribution.
    vocabulary_size: int ≥ 2; with it token_entropy becomes predictive ambiguity.
    ambiguity: {"predictive", "paraphrase", "specification": float or float[T], 0…1 or NaN}.
    probe: the fields of the record's Probe, norms as float[layers, directions].
    flip_distance: float[T, L] ≥ 0 or NaN.
    latency_us: int ≥ 0, the engine's time for this chunk.
    success, judge_score (finite), task_type: how the request ended, where it is known.
    applied_policy_version: int ≥ 0, the policy that controlled these tokens.
    """

    token_ids: Any
    token_entropy: Any
    vocabulary_size: int | None
    ambiguity: Mapping[str, Any] | None
    probe: Mapping[str, Any] | None
    flip_distance: Any
    latency_us: int | None
    success: bool | None
    judge_score: float | None
    task_type: str | None
    applied_policy_version: int | None


_NAMES = tuple(OptionalFields.__annotations__)


def optional_tail(shape: tuple[int, ...], fields: Mapping[str, Any]) -> bytes:
    """The encoded nullable fields of a chunk of that shape. Raises Refused for a bad value."""
    if not fields:
        return NO_OPTIONAL
    out = {name: value for name, value in fields.items() if value is not None}
    ambiguity = out.pop("ambiguity", None)
    steps, layers = shape[0], shape[1]
    for name, value in out.items():
        if name in _INTEGERS:
            high = INT_MAX if name in _INTS else LONG_MAX
            out[name] = check_integer(name, value, _INTEGERS[name], high)
        elif name == "judge_score":
            _check_finite(name, value)
        elif name == "task_type":
            check_text(name, value)
        elif name == "token_ids":
            out[name] = _token_ids(value, steps)
        elif name == "token_entropy":
            out[name] = per_token(name, value, steps, _INFINITY)
        elif name == "flip_distance":
            out[name] = _matrix(name, value, (steps, layers))
        elif name == "probe":
            out[name] = _probe(value, steps)
        elif name == "success":
            out[name] = bool(value)
        else:
            near = difflib.get_close_matches(name, _NAMES, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise Refused(INVALID_FIELD, f"unknown argument {name!r}{hint}")
    if ambiguity is not None:
        out |= _ambiguity(ambiguity, steps)
    return tail(out)


# The least value of each; what is no `int` in the record is a `long`.
_INTEGERS = {"vocabulary_size": 2, "latency_us": 0, "applied_policy_version": 0}
_INTS = frozenset({"vocabulary_size"})


def check_integer(name: str, value: Any, low: int, high: int) -> int:
    """`value` as int. Raises Refused unless it is a whole number within [low, high]."""
    try:
        good = low <= value <= high and int(value) == value
    except Exception:  # no number, or no single one
        good = False
    if not good:
        raise Refused(INVALID_FIELD, f"{name} is {value!r}, it must be an integer {low}…{high}")
    return int(value)


def check_text(name: str, value: Any) -> None:
    """Raise Refused unless `value` is text of at most TEXT_BYTES_MAX bytes of UTF-8."""
    try:
        size = len(value.encode())
    except (AttributeError, UnicodeEncodeError):
        raise Refused(INVALID_FIELD, f"{name} is {value!r}, it must be text") from None
    if size > TEXT_BYTES_MAX:
        raise Refused(INVALID_FIELD, f"{name} has {size} bytes, at most {TEXT_BYTES_MAX}")


def per_token(name: str, value: Any, steps: int, high: float) -> bytes:
    """A number, or one per token, within [0, high] or NaN (unknown), as float32[T] bytes."""
    if type(value) is float or type(value) is int:
        if value < 0 or value > min(high, FLOAT32_MAX):
            raise Refused(INVALID_FIELD, f"{name} is {value}, it must be within 0…{high:g} or NaN")
        return _FLOAT.pack(value) * steps
    column = _numbers(name, value)
    if column.shape == ():
        column = np.full(steps, column, _F32)
    if column.shape != (steps,):
        raise Refused(
            INVALID_FIELD, f"{name} has the shape {column.shape}, it must be a number or [{steps}]"
        )
    _check_range(name, column, high)
    return column.tobytes()


def _ambiguity(components: Mapping[str, Any], steps: int) -> dict[str, bytes]:
    if not isinstance(components, Mapping):
        raise Refused(INVALID_FIELD, "ambiguity must be a mapping from component to value")
    out = {}
    for name, value in components.items():
        if name not in AMBIGUITY_COMPONENTS:
            raise Refused(
                INVALID_FIELD,
                f"ambiguity {name!r} is unknown; it is one of {', '.join(AMBIGUITY_COMPONENTS)}",
            )
        if value is not None:
            out[f"ambiguity_{name}"] = per_token(f"ambiguity {name}", value, steps, 1.0)
    return out


def _check_range(name: str, values: npt.NDArray[Any], high: float) -> None:
    # fmin and fmax pass NaN over: it means unknown.
    least, most = np.fmin.reduce(values, axis=None), np.fmax.reduce(values, axis=None)
    if least < 0 or most > high or most == _INFINITY:
        raise Refused(INVALID_FIELD, f"{name} must be within 0…{high:g} or NaN (unknown)")


def _numbers(name: str, value: Any) -> npt.NDArray[Any]:
    try:
        with np.errstate(over="ignore"):
            return np.asarray(value, _F32)
    except Exception as error:
        raise Refused(INVALID_FIELD, f"{name} is no array of numbers: {error}") from error


def _matrix(name: str, value: Any, shape: tuple[int, ...]) -> bytes:
    values = _numbers(name, value)
    if values.shape != shape:
        raise Refused(INVALID_FIELD, f"{name} has the shape {values.shape}, it must be {shape}")
    if values.size:
        _check_range(name, values, _INFINITY)
    return values.tobytes()


def _token_ids(value: Any, steps: int) -> bytes:
    try:
        ids = np.asarray(value)
    except Exception as error:
        raise Refused(INVALID_FIELD, f"token_ids is no array: {error}") from error
    if ids.shape != (steps,) or ids.dtype.kind not in "iu":
        raise Refused(
            INVALID_FIELD, f"token_ids must be {steps} integers, got {ids.dtype} {ids.shape}"
        )
    if ids.min() < -INT_MAX - 1 or ids.max() > INT_MAX:
        raise Refused(INVALID_FIELD, "token_ids holds a number beyond int32")
    return ids.astype("<i4").tobytes()


def _check_finite(name: str, value: Any) -> None:
    try:
        good = -_INFINITY < float(value) < _INFINITY
    except (TypeError, ValueError, OverflowError):
        good = False
    if not good:
        raise Refused(INVALID_FIELD, f"{name} is {value!r}, it must be a finite number")


def _probe(probe: Mapping[str, Any], steps: int) -> dict[str, Any]:
    if not isinstance(probe, Mapping):
        raise Refused(INVALID_FIELD, "probe must be a mapping of the record's probe fields")
    unknown = set(probe) - _PROBE_NAMES
    if unknown:
        raise Refused(INVALID_FIELD, f"probe has unknown fields: {', '.join(sorted(unknown))}")
    missing = {f.name for f in PROBE_FIELDS if not f.nullable} - set(probe)
    if missing:
        raise Refused(INVALID_FIELD, f"probe lacks {', '.join(sorted(missing))}")
    layers = tuple(_numbers("probe layers", probe["layers"]).ravel().tolist())
    if len(layers) > LAYERS_MAX:
        raise Refused(INVALID_FIELD, f"probe has {len(layers)} layers, at most {LAYERS_MAX}")
    layer_ids = [check_integer("probe layer", layer, 0, INT_MAX) for layer in layers]
    step = check_integer("probe step", probe["step"], 0, steps - 1)
    directions = check_integer("probe directions", probe["directions"], 1, INT_MAX)
    check_text("probe basis_id", probe["basis_id"])
    _check_finite("probe epsilon", probe["epsilon"])
    if not 0 < probe["epsilon"] < 1:
        raise Refused(INVALID_FIELD, "probe epsilon must be within (0, 1)")
    cells = (len(layers), directions)
    out = dict(
        probe,
        step=step,
        layers=layer_ids,
        epsilon=float(probe["epsilon"]),
        directions=directions,
    )
    for name in ("dx_norm", "dw_norm", "dy_norm"):
        out[name] = _matrix(f"probe {name}", probe[name], cells)
    for name in ("drift_dx_norm", "drift_dy_norm"):
        if probe.get(name) is not None:
            out[name] = _matrix(f"probe {name}", probe[name], (len(layers),))
    return out
