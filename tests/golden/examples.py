"""One fixed value per record, made from its field names alone: the same on every machine."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any
from zlib import crc32

import numpy as np

from routekeel.schemas.fields import Field, Record
from routekeel.schemas.kinds import Enum, Kind, Matrix, Nested, Scalar, Sequence
from routekeel.schemas.matrices import shape_of

AXES = {"steps": 3, "experts": 4, "directions": 2, "layers": [1, 5], "top_m": 0}
TIME_US = 1_790_000_000_123_456


def example(record: Record, *, sparse: bool = False) -> dict[str, Any]:
    """A value with every field set; `sparse` leaves the nullable ones null."""
    return _value(record.fields, sparse, {})


def _value(fields: Iterable[Field], sparse: bool, outer: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for field in fields:
        seed = crc32(field.name.encode())
        if field.nullable and sparse:
            out[field.name] = None
        elif field.name in AXES:
            out[field.name] = AXES[field.name]
        elif isinstance(field.kind, Nested):
            out[field.name] = _value(field.kind.fields, sparse, out)
        elif isinstance(field.kind, Matrix):
            out[field.name] = _matrix(field.kind, shape_of(field.kind.dims, out, outer), seed)
        else:
            out[field.name] = _single(field.kind, field.name, seed)
    return out


def _matrix(kind: Matrix, shape: tuple[int, ...], seed: int) -> bytes:
    count = int(np.prod(shape))
    whole = (np.arange(count) * 7 + seed) % 64
    dtype = np.dtype(kind.dtype)
    values = whole if kind.decimals == 0 or dtype.kind in "iu" else whole / 64
    out = values.astype(dtype)
    if dtype.kind == "f" and kind.decimals != 0 and seed % 2:
        out[-1] = np.nan
    return out.tobytes()


def _single(kind: Kind, name: str, seed: int) -> Any:
    match kind:
        case Enum():
            return kind.symbols[seed % len(kind.symbols)]
        case Sequence():
            items = [_single(kind.item, f"{name}{i}", seed + i) for i in range(2)]
            return [*items, None] if kind.item_nullable else items
        case Scalar(logical="timestamp-micros"):
            return TIME_US + seed % 1000
        case Scalar(avro="string"):
            return f"{name}-é"
        case Scalar(avro="bytes"):
            return bytes([seed % 256, 0, 255])
        case Scalar(avro="boolean"):
            return bool(seed % 2)
        case Scalar(avro="int"):
            return seed % 1000 - 10
        case Scalar(avro="long"):
            return seed * 1000
        case Scalar():
            return seed % 64 / 64
    return {"name": name}


def to_json(value: Any) -> Any:
    """The value as JSON, bytes as {"base64": …}."""
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items()}
    return [to_json(item) for item in value] if isinstance(value, list) else value


def from_json(value: Any) -> Any:
    """What `to_json` was given."""
    if isinstance(value, dict):
        if set(value) == {"base64"}:
            return base64.b64decode(value["base64"])
        return {key: from_json(item) for key, item in value.items()}
    return [from_json(item) for item in value] if isinstance(value, list) else value
