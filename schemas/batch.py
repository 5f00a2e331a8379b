"""A batch of decoded records, transposed: every field as one tuple, every matrix as one array.

Knows how many rows each record has, so that a value per record or per token can be repeated for its
rows without a loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from routekeel.schemas.columns import Column, Origin
from routekeel.schemas.errors import BadRow
from routekeel.schemas.kinds import Matrix
from routekeel.schemas.tables import Grain, Table

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Coordinates:
    """Where the sink read the records: one topic and partition, an offset and a time per record.

    `times_ms` is Kafka's timestamp. It decides the partition and the TTL, so a record without one
    (−1) must be given the time of its neighbour or of the sink.
    """

    topic: str
    topic_id: str
    partition: int
    offsets: Ints
    times_ms: Ints


class Batch:
    """What every column of a batch needs: the fields transposed, and how often each is repeated."""

    def __init__(
        self, table: Table, records: Sequence[Mapping[str, Any]], coordinates: Coordinates
    ) -> None:
        kept = np.arange(len(records))
        if table.needs:
            kept = np.flatnonzero([bool(record[table.needs]) for record in records])
            records = [records[i] for i in kept.tolist()]
        self.indices = kept
        self.coordinates = coordinates
        self._fields = _transposed(records, _chunk_names(table))
        self._token_fields: dict[str, tuple[Any, ...]] = {}
        n = len(records)
        self.layer_counts: Ints = np.ones(n, np.int64)
        self.step_counts: Ints = np.ones(n, np.int64)
        self.experts: Ints = np.ones(n, np.int64)
        if table.grain is not Grain.CHUNK:
            self.layer_counts = lengths(self._fields["layers"])
            self.experts = np.array(self._fields["experts"], np.int64)
        if table.grain is Grain.TOKEN:
            rows = [record["token_rows"] for record in records]
            self._token_fields = _transposed(rows, ("steps", *_token_names(table)))
            self.step_counts = np.array(self._token_fields["steps"], np.int64)
            if n and self.step_counts.min() < 0:
                raise BadRow(int(kept[self.step_counts.argmin()]), "token_rows.steps is negative")
        self.row_counts: Ints = self.layer_counts * self.step_counts
        self.rows = int(self.row_counts.sum())
        self._one_token = bool((self.step_counts == 1).all())
        self._one_row = bool((self.row_counts == 1).all())

    def spread(self, values: Array) -> Array:
        """One value per record, repeated for each of its rows."""
        return values if self._one_row else np.repeat(values, self.row_counts)

    def spread_tokens(self, values: Array) -> Array:
        """One value per (record, token), repeated for each layer."""
        return np.repeat(values, np.repeat(self.layer_counts, self.step_counts))

    def field(self, column: Column) -> tuple[Any, ...]:
        """The column's field, one value per record."""
        assert column.field is not None
        fields = self._token_fields if column.origin in _TOKEN_ORIGINS else self._fields
        return fields[column.field.name]

    def layer_ids(self) -> Array:
        """The layer of each row."""
        ids = np.array([i for layers in self._fields["layers"] for i in layers], np.int32)
        if self._one_token:
            return ids
        first = np.cumsum(self.layer_counts) - self.layer_counts
        within, layers = self._within(), np.repeat(self.layer_counts, self.row_counts)
        return ids[np.repeat(first, self.row_counts) + within % np.maximum(layers, 1)]

    def token_indices(self) -> Array:
        """The token, counted within its record, of each row."""
        return self._within() // np.maximum(np.repeat(self.layer_counts, self.row_counts), 1)

    def _within(self) -> Ints:
        first = np.cumsum(self.row_counts) - self.row_counts
        return np.arange(self.rows) - np.repeat(first, self.row_counts)

    def joined(self, column: Column, cells: Ints) -> tuple[Array, Mask | None]:
        """A matrix field of all records end to end, and per record whether it was null."""
        assert column.field is not None
        assert isinstance(column.field.kind, Matrix)
        kind, parts, absent = column.field.kind, self.field(column), None
        expected = cells * kind.itemsize
        if column.field.nullable and None in parts:
            absent = np.fromiter((part is None for part in parts), np.bool_, len(parts))
            parts = tuple(
                bytes(size) if part is None else part
                for part, size in zip(parts, expected.tolist(), strict=True)
            )
        wrong = np.flatnonzero(lengths(parts) != expected)
        if len(wrong):
            first = int(wrong[0])
            reason = f"{column.field.name} has {len(parts[first])} bytes, not {expected[first]}"
            raise BadRow(int(self.indices[first]), reason)
        return np.frombuffer(b"".join(parts), kind.dtype), absent

    def record_of_row(self, row: int) -> int:
        """The batch index of the record that a row came from."""
        return int(self.indices[np.searchsorted(np.cumsum(self.row_counts), row, side="right")])


_TOKEN_ORIGINS = frozenset({Origin.TOKEN, Origin.TOKEN_LAYER, Origin.TOKEN_LAYER_VECTOR})


def _chunk_names(table: Table) -> tuple[str, ...]:
    names = {
        column.field.name: None
        for column in table.columns
        if column.field is not None and column.origin not in _TOKEN_ORIGINS
    }
    if table.grain is not Grain.CHUNK:
        names |= {"layers": None, "experts": None}
    return tuple(names)


def _token_names(table: Table) -> tuple[str, ...]:
    return tuple(c.field.name for c in table.columns if c.field and c.origin in _TOKEN_ORIGINS)


def _transposed(
    records: Sequence[Mapping[str, Any]], names: tuple[str, ...]
) -> dict[str, tuple[Any, ...]]:
    if not records:
        return dict.fromkeys(names, ())
    return dict(zip(names, zip(*map(itemgetter(*names), records), strict=True), strict=True))


def lengths(parts: Sequence[Any]) -> Ints:
    """The length of each part."""
    return np.fromiter(map(len, parts), np.int64, len(parts))
