"""A Record as an Avro schema: as it is published, and as the codec reads and writes it.

The published form says everything (units, ranges, logical types). The codec's form drops the
logical types: with them fastavro builds a datetime for every timestamp; here times stay int µs.
"""

from __future__ import annotations

from collections.abc import Mapping as MappingABC
from functools import cache
from typing import Any, cast

import fastavro

from routekeel.schemas.fields import REQUIRED, Field, Record
from routekeel.schemas.kinds import Enum, Mapping, Matrix, Nested, Scalar, Sequence

AvroSchema = dict[str, Any]


def full_name(record: Record) -> str:
    """The record's Avro name with its namespace, e.g. `routekeel.RouterLogits`."""
    return f"{record.namespace}.{record.name}"


def schema(record: Record) -> AvroSchema:
    """The Avro schema of a record as it is published: a new, JSON-compatible dict.

    Enums and nested records are defined where they first occur and named afterwards. Each field has
    `doc` and, where they apply, `unit`, `range`, `dtype` and `shape` as extra properties.

    >>> from routekeel.schemas.records import WEIGHTS
    >>> schema(WEIGHTS)["name"], schema(WEIGHTS)["namespace"]
    ('Weights', 'routekeel')
    >>> next(f for f in schema(WEIGHTS)["fields"] if f["name"] == "w_hat")["shape"]
    ['layers', 'experts']
    """
    defined: set[str] = set()
    return {
        "type": "record",
        "name": record.name,
        "namespace": record.namespace,
        "doc": record.doc,
        "version": record.version,
        "fields": [_field(field, defined) for field in record],
    }


def _field(field: Field, defined: set[str]) -> AvroSchema:
    avro_type = _type(field.kind, defined)
    out: AvroSchema = {
        "name": field.name,
        "type": ["null", avro_type] if field.nullable else avro_type,
        "doc": field.doc,
    }
    if field.nullable:
        if field.default not in (REQUIRED, None):
            raise ValueError(f"{field.name}: a nullable field defaults to null")
        out["default"] = None
    elif field.default is not REQUIRED:
        out["default"] = field.default
    if field.unit:
        out["unit"] = field.unit
    if field.range:
        out["range"] = field.range
    if isinstance(field.kind, Matrix):
        out["dtype"] = field.kind.dtype
        out["shape"] = list(field.kind.dims)
    return out


def _type(kind: Any, defined: set[str]) -> Any:
    match kind:
        case Scalar():
            return {"type": kind.avro, "logicalType": kind.logical} if kind.logical else kind.avro
        case Matrix():
            return "bytes"
        case Mapping():
            return {"type": "map", "values": "string"}
        case Sequence():
            item: Any = _type(kind.item, defined)
            return {"type": "array", "items": ["null", item] if kind.item_nullable else item}
        case Enum():
            if kind.name in defined:
                return kind.name
            defined.add(kind.name)
            return {
                "type": "enum",
                "name": kind.name,
                "symbols": list(kind.symbols),
                "default": kind.symbols[0],
            }
        case Nested():
            if kind.name in defined:
                return kind.name
            defined.add(kind.name)
            return {
                "type": "record",
                "name": kind.name,
                "fields": [_field(field, defined) for field in kind.fields],
            }
    raise TypeError(f"no Avro type for {kind!r}")


@cache
def reader_schema(record: Record) -> AvroSchema:
    """The record's schema parsed for the codec (see `parse`); the same object on every call."""
    return parse(schema(record))


def parse(published: MappingABC[str, Any]) -> AvroSchema:
    """A schema, ours or from the registry, parsed by fastavro for the codec: without logical types.

    Raises ValueError where it is not a valid Avro record schema.
    """
    try:
        parsed = fastavro.parse_schema(cast(AvroSchema, bare(dict(published))))
    except Exception as error:  # fastavro raises its own classes, KeyError and TypeError alike
        raise ValueError(f"not an Avro schema: {error}") from error
    if not isinstance(parsed, dict) or parsed.get("type") != "record":
        raise ValueError("not an Avro record schema")
    return cast(AvroSchema, parsed)


_PROSE = frozenset({"doc", "version", "unit", "range", "dtype", "shape", "logicalType"})


def bare(published: Any) -> Any:
    """The schema reduced to what decides its bytes and its resolution: no docs, no logical types.

    >>> bare({"type": "long", "logicalType": "timestamp-micros"})
    'long'
    """
    if isinstance(published, list):
        return [bare(item) for item in published]
    if not isinstance(published, dict):
        return published
    # A default is data, not schema: it may hold any key.
    out = {
        key: value if key in ("default", "symbols") else bare(value)
        for key, value in published.items()
        if key not in _PROSE
    }
    return out["type"] if set(out) == {"type"} else out
