"""A topic's records through the compiled decoder: which it could read, how many rows they make, their sources.

Where numba is not installed, or a record is not plainly valid, fastavro does it (items.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from routekeel.operators.step import compiled_kernel_exists
from routekeel.schemas.fields import Record
from routekeel.streams.wire.program import index_of, program_of

if TYPE_CHECKING:
    from routekeel.streams.sinks.block import SourceKey

I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

COLUMN_BYTES: Final = 12
"""A decoded field: where it begins, and a number."""


class Bulk(NamedTuple):
    """Decoded columns (streams/wire/decode.Columns) that can be cut and joined, and int64[n] bytes."""

    columns: Any
    lengths: I64

    @property
    def good(self) -> Mask:
        """bool[n]: whether a record was decoded here."""
        good: Mask = self.columns.good
        return good

    def part(self, chosen: slice | I64) -> Bulk:
        """Some of the records."""
        return Bulk(self.columns.part(chosen), self.lengths[chosen])

    @staticmethod
    def joined(parts: Sequence[Bulk]) -> Bulk | None:
        """All end to end; None where that is too long for offsets of 32 bits."""
        columns = [part.columns for part in parts]
        sizes = [len(one.buffer) for one in columns]
        if sum(sizes) >= 2**31:
            return None
        bases = np.cumsum([0, *sizes[:-1]]).tolist()
        return Bulk(
            columns[0]._replace(
                buffer=np.concatenate([one.buffer for one in columns]),
                starts=np.concatenate(
                    [one.starts + np.int32(base) for one, base in zip(columns, bases, strict=True)]
                ),
                values=np.concatenate([one.values for one in columns]),
                good=np.concatenate([one.good for one in columns]),
            ),
            np.concatenate([part.lengths for part in parts]),
        )

    def has(self, record: Record, name: str) -> Mask:
        """bool[n]: whether a bytes field or a group is there and not empty."""
        field = index_of(record, nested=True)[name]
        present: Mask = self.good & (self.columns.values[:, field] > 0)
        return present


class BulkDecoder:
    """Decodes records of one kind that our own schema wrote."""

    def __init__(self, record: Record) -> None:
        # Loaded here: without numba this cannot be imported.
        from routekeel.streams.wire import rows
        from routekeel.streams.wire.decode import decode

        self._decode, self._rows = decode, rows
        self._program = program_of(record, nested=True)
        self._at = index_of(record, nested=True)
        self.bytes_each = COLUMN_BYTES * len(self._program)

    @classmethod
    def of(cls, record: Record) -> BulkDecoder | None:
        """A decoder where numba is installed and the record has rows per layer, else None."""
        has_layers = any(field.name == "layers" for field in record)
        return cls(record) if has_layers and compiled_kernel_exists() else None

    def decode(self, values: Sequence[bytes | None], schema_id: int) -> Bulk:
        """The columns of framed records."""
        framed = [value or b"" for value in values]
        lengths = np.fromiter(map(len, framed), np.int64, len(framed))
        return Bulk(self._decode(framed, schema_id, self._program), lengths)

    def rows(self, bulk: Bulk) -> I64:
        """int64[n]: rows in all tables; 0 where not decoded."""
        values, good = bulk.columns.values, bulk.good
        layers: I64 = np.where(good, values[:, self._at["layers"]], 0)
        steps = self._at.get("token_rows.steps")
        if steps is None:
            return layers
        tokens: I64 = np.where(good, np.maximum(values[:, steps], 0), 0)
        layers *= 1 + tokens
        return layers

    def sources(
        self, bulk: Bulk
    ) -> tuple[tuple[SourceKey, ...], npt.NDArray[np.int32], I64] | None:
        """(sources, int32[n] place of each record's, int64[n] source offsets), of the decoded ones.

        None where there are more topic ids than a partition can have.
        """
        at, good = self._at, bulk.good
        chosen = np.flatnonzero(good)
        columns = bulk.columns if len(chosen) == len(good) else bulk.part(chosen).columns
        found = self._rows.distinct(columns, at["source_topic_id"])
        if found is None:
            return None
        (places, texts), partitions = found, columns.values[:, at["source_partition"]]
        pairs = np.stack([places.astype(np.int64), partitions], axis=1)
        if len(pairs) and (pairs == pairs[0]).all():  # as in nearly every block
            pairs, key_of_chosen = pairs[:1], np.zeros(len(pairs), np.int64)
        else:
            pairs, key_of_chosen = np.unique(pairs, axis=0, return_inverse=True)
        key_of = np.zeros(len(good), np.int32)
        key_of[chosen] = key_of_chosen.reshape(-1)
        names = tuple(
            (texts[place].decode("ascii"), partition) for place, partition in pairs.tolist()
        )
        return names, key_of, np.where(good, bulk.columns.values[:, at["source_offset"]], -1)
