"""Cuts the stream of one log partition into batches: the unit of an insert and of its token.

A batch ends at the row or byte limit, when its oldest record has waited long enough, and at
midnight (UTC) of the log: a table's partitions are days of the log, and only an insert into one of
them is atomic.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np

from routekeel.streams.sinks.block import Block
from routekeel.streams.topology.records import Source

DAY_MS: Final = 86_400_000
BATCH_BYTES_MAX: Final = 64 * 2**20
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
    items: Block
    read_at: float

    @property
    def first(self) -> int:
        """The first record's offset."""
        return int(self.items.offsets[0])

    @property
    def last(self) -> int:
        """The last record's offset."""
        return int(self.items.offsets[-1])

    @property
    def size_bytes(self) -> int:
        """What its records occupy in memory."""
        return int(self.items.sizes.sum())


class PartitionBuffer:
    """The records of one log partition that wait for a batch."""

    def __init__(self, source: Source, limits: BatchLimits) -> None:
        self._source = source
        self._limits = limits
        self._blocks: deque[tuple[Block, float]] = deque()
        self._records = 0
        self.size_bytes = 0
        self.rows = 0

    def __len__(self) -> int:
        return self._records

    @property
    def oldest_read_at(self) -> float:
        """When the record that waits longest was read; the buffer must not be empty."""
        return self._blocks[0][1]

    def add(self, block: Block, now: float) -> None:
        """Append records that were read at `now`, in log order."""
        if len(block):
            self._blocks.append((block, now))
            self._count(block, 1)

    def _count(self, block: Block, sign: int) -> None:
        self._records += sign * len(block)
        self.size_bytes += sign * int(block.sizes.sum())
        self.rows += sign * int(block.rows.sum())

    def due(self, now: float) -> bool:
        """Whether a batch should be cut now."""
        if not self._blocks:
            return False
        limits = self._limits
        full = self.rows >= limits.rows_max or self.size_bytes >= limits.bytes_max
        return full or now - self.oldest_read_at >= limits.interval_s

    def cut(self) -> Batch | None:
        """Take a batch off the front, as large as the limits allow, one record at least."""
        if not self._blocks:
            return None
        day = int(self._blocks[0][0].times_ms[0]) // DAY_MS
        taken: list[Block] = []
        rows = size = 0
        while self._blocks:
            block, block_read_at = self._blocks[0]
            rows_then, size_then = rows + np.cumsum(block.rows), size + np.cumsum(block.sizes)
            limits = self._limits
            stop = (rows_then > limits.rows_max) | (size_then > limits.bytes_max)
            stop |= block.times_ms // DAY_MS != day
            if not taken:
                stop[0] = False
            count = int(np.argmax(stop)) if stop.any() else len(block)
            if count == 0:
                break
            read_at = block_read_at
            self._blocks.popleft()
            if count < len(block):
                self._blocks.appendleft((block.part(slice(count, None)), block_read_at))
                block = block.part(slice(count))
            taken.append(block)
            self._count(block, -1)
            rows, size = int(rows_then[count - 1]), int(size_then[count - 1])
            if stop.any():
                break
        return Batch(self._source, Block.joined(taken), read_at)
