"""The kinds of value a field can hold, each with its Avro and its ClickHouse form.

Matrices travel as little-endian bytes with their shape named in sibling fields: decoding an Avro
array of 64 x 64 floats costs about a hundred times more than copying the bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from routekeel.schemas.fields import Field


@dataclass(frozen=True, slots=True)
class Scalar:
    """A single value: `avro` is its Avro type, `clickhouse` its column type.

    `codec` is the column codec, `logical` the Avro logical type, `decimals` what a float is rounded
    to before it is stored in ClickHouse (None: stored as it is).
    """

    avro: str
    clickhouse: str
    codec: str = ""
    logical: str = ""
    decimals: int | None = None


STRING = Scalar("string", "String")
LABEL = Scalar("string", "LowCardinality(String)")
"""A string from a small set of values (a model, a backend): dictionary-encoded in ClickHouse."""
BOOLEAN = Scalar("boolean", "Bool")
INT = Scalar("int", "Int32")
LONG = Scalar("long", "Int64")
OFFSET = Scalar("long", "Int64", "Delta, ZSTD(1)")
FLOAT = Scalar("float", "Float32")
DOUBLE = Scalar("double", "Float64")
BYTES = Scalar("bytes", "String", "ZSTD(1)")
TIMESTAMP = Scalar("long", "DateTime64(6, 'UTC')", "Delta, ZSTD(1)", logical="timestamp-micros")
RATIO = Scalar("float", "Float32", "ALP, ZSTD(1)", decimals=4)
"""A float whose fifth decimal nobody reads (a mean, a share): rounded, it compresses better."""


@dataclass(frozen=True, slots=True)
class Enum:
    """One of `symbols`; the first is what an older reader takes a new symbol for."""

    name: str
    symbols: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sequence:
    """A short list of scalars as an Avro array (layer ids, header names)."""

    item: Scalar
    item_nullable: bool = False


@dataclass(frozen=True, slots=True)
class Matrix:
    """A C-contiguous little-endian matrix as bytes.

    `dtype` is a NumPy type string ('<f4', '<f2', '<i4', '|u1', '<u2'), `dims` names the fields of
    the record that give the length of each axis (a `Sequence` field counts with its length); inside
    a `Nested` record an axis that it does not have is the outer record's.
    `decimals` is what the value is rounded to before it is stored in ClickHouse.
    """

    dtype: str
    dims: tuple[str, ...]
    decimals: int | None = None

    @property
    def itemsize(self) -> int:
        """Bytes per element."""
        return np.dtype(self.dtype).itemsize


@dataclass(frozen=True, slots=True, eq=False)
class Nested:
    """A record inside the record: an optional group of fields. Compared by identity."""

    name: str
    fields: tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class Mapping:
    """A map from string to string (labels of an alert)."""


Kind = Scalar | Enum | Sequence | Matrix | Nested | Mapping
