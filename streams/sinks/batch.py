"""Cuts the stream of one log partition into batches: the unit of an insert and of its token.

A batch ends at the row or byte limit, when its oldest record has waited long enough, and at
midnight (UTC) of the log: a table's partitions are days of the log, and only an insert into one of
them is atomic.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from routekeel.streams.sinks.items import Item
from routekeel.streams.topology.records import Source

DAY_MS: Final = 86_400_000
BATCH_BYTES_MAX: Final = 32 * 2**20
"""Far below the 256 MiB at which a server would split an insert into several blocks."""


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """When a batch is complete. `interval_s` counts from the reading of its oldest record."""

    rows_max: int
    interval_s: float
    bytes_max: int = BATCH_BYTES_MAX


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive records of one log partition; never changed once it is cut.

    `read_at` is when the last of them was read, by the clock of the sink.
    """

    source: Source
    items: tuple[Item, ...]
    read_at: float

    @property
    def first(self) -> int:
        """The first record's offset."""
        return self.items[0].offset

    @property
    def last(self) -> int:
        """The last record's offset."""
        return self.items[-1].offset

    @property
    def size_bytes(self) -> int:
        """What its records occupy in memory."""
        return sum(item.size_bytes for item in self.items)


class PartitionBuffer:
    """The records of one log partition that wait for a batch."""

    def __init__(self, source: Source, limits: BatchLimits) -> None:
        self._source = source
        self._limits = limits
        self._items: deque[Item] = deque()
        self._read_at: deque[float] = deque()
        self.size_bytes = 0
        self.rows = 0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def oldest_read_at(self) -> float:
        """When the record that waits longest was read; the buffer must not be empty."""
        return self._read_at[0]

    def add(self, items: Sequence[Item], now: float) -> None:
        """Append records that were read at `now`, in log order."""
        self._items.extend(items)
        self._read_at.extend([now] * len(items))
        self.size_bytes += sum(item.size_bytes for item in items)
        self.rows += sum(item.rows for item in items)

    def due(self, now: float) -> bool:
        """Whether a batch should be cut now."""
        if not self._items:
            return False
        limits = self._limits
        full = self.rows >= limits.rows_max or self.size_bytes >= limits.bytes_max
        return full or now - self._read_at[0] >= limits.interval_s

    def cut(self) -> Batch | None:
        """Take a batch off the front, as large as the limits allow, one record at least."""
        if not self._items:
            return None
        day = self._items[0].record.timestamp_ms // DAY_MS
        taken: list[Item] = []
        rows = size = 0
        while self._items:
            item = self._items[0]
            rows += item.rows
            size += item.size_bytes
            over = rows > self._limits.rows_max or size > self._limits.bytes_max
            if taken and (over or item.record.timestamp_ms // DAY_MS != day):
                break
            taken.append(self._items.popleft())
            read_at = self._read_at.popleft()
        self.size_bytes -= sum(item.size_bytes for item in taken)
        self.rows -= sum(item.rows for item in taken)
        return Batch(self._source, tuple(taken), read_at)
