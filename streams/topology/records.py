"""The values that cross the border of the topology: what comes from the log and what goes back."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from itertools import chain
from typing import Any, NamedTuple, overload

from routekeel.streams.topology.record_block import Outputs


class SourceRecord(NamedTuple):
    """One record as it was read. `timestamp_ms` is the log's time of it (the broker's append time)."""

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


@dataclass(frozen=True, slots=True)
class LogBatch:
    """Consecutive records of one partition as columns; `batch[i]` is a record.

    A worker gets thousands at once, and most of them are never looked at one by one.
    """

    offsets: list[int]
    timestamps_ms: list[int]
    keys: list[bytes | None]
    values: list[bytes | None]
    headers: list[Sequence[tuple[str, bytes | None]]]

    @classmethod
    def of(cls, records: Sequence[SourceRecord]) -> LogBatch:
        """Records as columns."""
        return cls(
            [r.offset for r in records],
            [r.timestamp_ms for r in records],
            [r.key for r in records],
            [r.value for r in records],
            [r.headers for r in records],
        )

    def __len__(self) -> int:
        return len(self.offsets)

    @overload
    def __getitem__(self, index: int) -> SourceRecord: ...

    @overload
    def __getitem__(self, index: slice) -> LogBatch: ...

    def __getitem__(self, index: int | slice) -> SourceRecord | LogBatch:
        make: Any = LogBatch if isinstance(index, slice) else SourceRecord
        made: SourceRecord | LogBatch = make(
            self.offsets[index],
            self.timestamps_ms[index],
            self.keys[index],
            self.values[index],
            self.headers[index],
        )
        return made

    def take(self, indices: Sequence[int]) -> LogBatch:
        """The records at these indices."""
        make: Any = LogBatch
        columns = (self.offsets, self.timestamps_ms, self.keys, self.values, self.headers)
        made: LogBatch = make(*([column[index] for index in indices] for column in columns))
        return made

    @classmethod
    def joined(cls, batches: Sequence[LogBatch]) -> LogBatch:
        """Several, one after the other."""
        return cls(
            list(chain.from_iterable(batch.offsets for batch in batches)),
            list(chain.from_iterable(batch.timestamps_ms for batch in batches)),
            list(chain.from_iterable(batch.keys for batch in batches)),
            list(chain.from_iterable(batch.values for batch in batches)),
            list(chain.from_iterable(batch.headers for batch in batches)),
        )

    def after(self, offset: int) -> LogBatch:
        """The records beyond this offset."""
        start = bisect_right(self.offsets, offset)
        return self[start:] if start else self


class Source(NamedTuple):
    """Where records come from; `topic_id` is Kafka's id, so that a recreated topic is another source."""

    topic: str
    topic_id: str
    partition: int


class Refusal(Exception):
    """A record that cannot be processed. `error_class` is machine-readable, the message for people."""

    def __init__(self, error_class: str, message: str) -> None:
        super().__init__(message)
        self.error_class = error_class
        self.message = message


class DeadLetter(NamedTuple):
    """A refused record with the reason."""

    record: SourceRecord
    error_class: str
    message: str


@dataclass(slots=True)
class BatchCounts:
    """What happened in one batch; every drop and every oddity has its counter."""

    records: int = 0
    skipped: int = 0
    rows: int = 0
    rows_repeated: int = 0
    chunks_repeated: int = 0
    positions_missing: int = 0
    sequences_missing: int = 0
    dropped_by_producer: int = 0
    dead_letters: dict[str, int] = field(default_factory=dict)
    state_resets: dict[str, int] = field(default_factory=dict)
    evicted_idle: int = 0
    evicted_cap: int = 0
    event_time_clamped: int = 0

    def add(self, more: BatchCounts) -> None:
        """Add another batch's counts."""
        for field_ in fields(self):
            own, other = getattr(self, field_.name), getattr(more, field_.name)
            if isinstance(own, dict):
                for name, count in other.items():
                    own[name] = own.get(name, 0) + count
            else:
                setattr(self, field_.name, own + other)


@dataclass(slots=True)
class BatchResult:
    """Everything a batch leads to, in log order. Nothing here has been sent yet.

    Outputs and dead letters must be durable before a checkpoint may follow (engine.md's rule 3).
    """

    outputs: Outputs
    dead_letters: list[DeadLetter]
    applied_offset: int
    counts: BatchCounts

    def add(self, more: BatchResult) -> None:
        """Append what the records after these led to."""
        self.outputs = Outputs.joined([self.outputs, more.outputs])
        self.dead_letters += more.dead_letters
        self.applied_offset = more.applied_offset
        self.counts.add(more.counts)
