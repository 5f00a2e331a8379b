"""Consecutive records of one log partition as columns: what the sink buffers, cuts, selects and stores.

Most records are read by the compiled decoder and never become objects. What it left to fastavro has
its fields in `fields`, what is bad its reason in `refused`, both by log offset, so that a part of a
block shares them with the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from routekeel.schemas.fields import Record
from routekeel.streams.sinks.bulk import I64, Bulk, Mask
from routekeel.streams.topology.records import DeadLetter, LogBatch, SourceRecord

SourceKey = tuple[str, int]
"""A source: (topic id, partition)."""
LetterKey = tuple[str, int, int]
"""What a record is about: (topic id, partition, offset)."""


class Refused(NamedTuple):
    """Why a record cannot become rows: a machine-readable class and a sentence."""

    error_class: str
    message: str


@dataclass(frozen=True, slots=True)
class Item:
    """One record decoded by itself. Either `fields` holds its value or `refused` says why not.

    `rows` is how many rows it makes in all tables together, `size_bytes` what it occupies here.
    """

    record: SourceRecord
    fields: Mapping[str, Any] | None
    refused: Refused | None
    rows: int
    size_bytes: int


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """n records in log order; never changed.

    offsets, times_ms, rows (in all tables together), sizes (bytes held): int64[n]. usable: bool[n],
    False where refused. keys: the sources; key_of: int32[n], each record's place among them;
    source_offsets: int64[n]. columns: what the compiled decoder read of records of the kind
    `record` (streams/wire/decode), None where it was not used; `decode` reads one again.
    """

    records: LogBatch
    offsets: I64
    times_ms: I64
    rows: I64
    sizes: I64
    usable: Mask
    keys: tuple[SourceKey, ...]
    key_of: npt.NDArray[np.int32]
    source_offsets: I64
    refused: Mapping[int, Refused]
    fields: Mapping[int, Mapping[str, Any]]
    record: Record | None = None
    columns: Bulk | None = None
    decode: Callable[[bytes], Mapping[str, Any]] | None = None

    @classmethod
    def of(cls, items: Sequence[Item]) -> Block:
        """Records that were decoded one by one."""
        keys: dict[SourceKey, int] = {}
        key_of = [keys.setdefault(source_of(i.fields), len(keys)) if i.fields else 0 for i in items]
        return cls(
            LogBatch.of([item.record for item in items]),
            np.array([item.record.offset for item in items], np.int64),
            np.array([item.record.timestamp_ms for item in items], np.int64),
            np.array([item.rows for item in items], np.int64),
            np.array([item.size_bytes for item in items], np.int64),
            np.array([item.refused is None for item in items], np.bool_),
            tuple(keys),
            np.array(key_of, np.int32),
            np.array([i.fields["source_offset"] if i.fields else -1 for i in items], np.int64),
            {i.record.offset: i.refused for i in items if i.refused is not None},
            {i.record.offset: i.fields for i in items if i.fields is not None},
        )

    @classmethod
    def joined(cls, blocks: Sequence[Block]) -> Block:
        """Several, one after the other, as one."""
        if len(blocks) == 1:
            return blocks[0]
        keys = {key: None for block in blocks for key in block.keys}
        place = {key: index for index, key in enumerate(keys)}
        key_of = [
            np.array([place[key] for key in block.keys] or [0], np.int32)[block.key_of]
            for block in blocks
        ]
        described = next((block for block in blocks if block.decode is not None), blocks[0])
        bulks = [block.columns for block in blocks if block.columns is not None]

        def end_to_end(name: str) -> Any:
            return np.concatenate([getattr(block, name) for block in blocks])

        return cls(
            LogBatch.joined([block.records for block in blocks]),
            end_to_end("offsets"),
            end_to_end("times_ms"),
            end_to_end("rows"),
            end_to_end("sizes"),
            end_to_end("usable"),
            tuple(keys),
            np.concatenate(key_of),
            end_to_end("source_offsets"),
            {offset: why for block in blocks for offset, why in block.refused.items()},
            {offset: value for block in blocks for offset, value in block.fields.items()},
            described.record,
            Bulk.joined(bulks) if len(bulks) == len(blocks) else None,
            described.decode,
        )

    def __len__(self) -> int:
        return len(self.offsets)

    def part(self, chosen: slice | I64) -> Block:
        """Some of the records, in order: a slice, or int64 indices."""
        records = (
            self.records[chosen]
            if isinstance(chosen, slice)
            else self.records.take(chosen.tolist())
        )
        return replace(
            self,
            records=records,
            columns=None if self.columns is None else self.columns.part(chosen),
            **{name: getattr(self, name)[chosen] for name in _BY_RECORD},
        )

    def refuse(self, index: int, why: Refused) -> Block:
        """The block with one record refused."""
        usable = self.usable.copy()
        usable[index] = False
        return replace(self, usable=usable, refused={**self.refused, int(self.offsets[index]): why})

    def letters(self) -> list[DeadLetter]:
        """The refused records."""
        indices = np.flatnonzero(~self.usable).tolist()
        return [self.letter(index) for index in indices]

    def letter(self, index: int) -> DeadLetter:
        """One refused record."""
        why = self.refused[int(self.offsets[index])]
        return DeadLetter(self.records[index], why.error_class, why.message)

    def identity(self, index: int) -> LetterKey:
        """What a record is about; it must be usable."""
        return (*self.keys[self.key_of[index]], int(self.source_offsets[index]))

    def has(self, name: str) -> Mask:
        """bool[n]: whether a field is there and not empty. False where refused."""
        out = np.zeros(len(self), np.bool_)
        if self.columns is not None and self.record is not None:
            out[:] = self.columns.has(self.record, name)
        for index in self._plain():
            out[index] = bool(self.fields[int(self.offsets[index])].get(name))
        return out & self.usable

    def values(self) -> list[Mapping[str, Any]]:
        """The records' decoded fields, which costs a decoding where the compiled decoder was used."""
        out = []
        for index, offset in enumerate(self.offsets.tolist()):
            fields = self.fields.get(offset)
            if fields is None:
                assert self.decode is not None
                fields = self.decode(self.records.values[index] or b"")
            out.append(fields)
        return out

    def _plain(self) -> list[int]:
        if not self.fields:
            return []
        return [i for i, offset in enumerate(self.offsets.tolist()) if offset in self.fields]


def source_of(fields: Mapping[str, Any]) -> SourceKey:
    """The source that a decoded record names."""
    return fields["source_topic_id"], fields["source_partition"]


_BY_RECORD = ("offsets", "times_ms", "rows", "sizes", "usable", "key_of", "source_offsets")
