"""The sink's partitions between the consumer and the batches: what waits, what is in flight, what
may be committed. No I/O and no clock: times and events are passed in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import lt
from typing import Final

from routekeel.streams.sinks.actions import BuildPayload
from routekeel.streams.sinks.batch import Batch, BatchLimits, PartitionBuffer
from routekeel.streams.sinks.block import Block
from routekeel.streams.sinks.dedupe import TableProgress
from routekeel.streams.sinks.items import Route
from routekeel.streams.sinks.offsets import Committed
from routekeel.streams.sinks.work import BatchWork
from routekeel.streams.topology.records import LogBatch, Source

LogPartition = tuple[str, int]
"""(topic, partition)"""
Decode = Callable[[str, LogBatch], tuple[Block, str]]
"""Decodes records of a topic; says what is wrong with the registry where it ended before their end."""

BUFFERED_BYTES_MAX: Final = 512 * 2**20
"""Reading pauses above this and goes on below three quarters of it. What is in flight counts, too: four
full batches and as much again, or the store would rest whenever they end together."""

NEARLY_FULL_BYTES: Final = BUFFERED_BYTES_MAX // 4 * 3
IN_FLIGHT_MIN: Final = 2
"""With fewer batches in flight the store is taken to have a core to spare."""
EARLY_PARTS: Final = 4
"""Such a batch has one in so many of the rows of a full one."""


@dataclass(frozen=True, slots=True)
class Start:
    """Where a log partition is taken up: its source, what the tables have, the next offset."""

    source: Source
    progress: Mapping[str, TableProgress]
    offset: int


@dataclass(slots=True)
class PartitionState:
    """One assigned log partition."""

    source: Source
    route: Route
    progress: dict[str, TableProgress]
    buffer: PartitionBuffer
    next_offset: int
    """The offset expected next."""
    done_offset: int
    """Everything below it is in the tables, a repeat, or in the dead letters."""
    undecoded: deque[tuple[LogBatch, float]] = field(default_factory=deque)
    undecoded_records: int = 0
    undecoded_bytes: int = 0
    work: BatchWork | None = None
    started: bool = False
    offsets_missing: int = 0

    @property
    def waiting(self) -> int:
        """Records read and not yet dealt with."""
        in_flight = len(self.work.batch.items) if self.work else 0
        return self.undecoded_records + len(self.buffer) + in_flight

    @property
    def held_bytes(self) -> int:
        """Bytes of those records; a batch in flight counts twice, for its payload."""
        in_flight = 2 * self.work.batch.size_bytes if self.work else 0
        return self.undecoded_bytes + self.buffer.size_bytes + in_flight

    def commit(self) -> Committed:
        """What to commit to the group now."""
        stored = self.progress[self.route.anchor].stored
        return Committed(self.done_offset, self.source.topic_id, stored)


class SinkCore:
    """All assigned partitions. Used by one thread; a batch's work is another's until it returns."""

    def __init__(
        self, routes: Mapping[str, Route], limits: BatchLimits, decode: Decode, build: BuildPayload
    ) -> None:
        self._routes = routes
        self._limits = limits
        self._decode = decode
        self._build = build
        self.partitions: dict[LogPartition, PartitionState] = {}
        self.paused = False

    def assign(self, starts: Mapping[LogPartition, Start]) -> None:
        """Take these partitions up, and no others."""
        self.partitions = {
            key: PartitionState(
                start.source,
                self._routes[start.source.topic],
                dict(start.progress),
                PartitionBuffer(start.source, self._limits),
                start.offset,
                start.offset,
            )
            for key, start in starts.items()
        }
        self.paused = False

    def clear(self) -> None:
        """Forget all partitions with what they hold; it is read again by whoever owns them next."""
        self.partitions = {}
        self.paused = False

    def receive(self, key: LogPartition, records: LogBatch, now: float) -> bool:
        """Take records. False where their offsets show that the log is not the one we know."""
        state = self.partitions.get(key)
        if state is None:
            return True  # read before the partition was given up
        offsets = records.offsets
        if offsets[0] < state.next_offset or not _ascend(offsets):
            return False
        last = offsets[-1]
        begin = state.next_offset if state.started or state.next_offset else offsets[0]
        state.offsets_missing += last + 1 - begin - len(offsets)
        state.started = True
        state.next_offset = last + 1
        state.undecoded.append((records, now))
        self._count(state, records, 1)
        return True

    @staticmethod
    def _count(state: PartitionState, records: LogBatch, sign: int) -> None:
        state.undecoded_records += sign * len(records)
        state.undecoded_bytes += sign * sum(map(len, filter(None, records.values)))

    def decode(self) -> str:
        """Decode what waits. Returns what is wrong with the registry; empty where nothing is."""
        trouble = ""
        for (topic, _), state in self.partitions.items():
            while state.undecoded:
                records, read_at = state.undecoded.popleft()
                block, why = self._decode(topic, records)
                state.buffer.add(block, read_at)
                whole = len(block) == len(records)
                self._count(state, records if whole else records[: len(block)], -1)
                if why:
                    trouble = why
                    state.undecoded.appendleft((records[len(block) :], read_at))
                    break
        return trouble

    def ready(self, now: float) -> Iterator[BatchWork]:
        """Batches to start now, the longest waiting first; one at a time per partition, in order.

        A batch is cut when it is asked for, so what is not asked for yet goes on growing. While hardly
        any is in flight, a part of one will do: partitions are read evenly and would fill all at
        once, and the store would rest until then.
        """
        free = [state for state in self.partitions.values() if state.work is None]
        due = [state for state in free if state.buffer.due(now)]
        if not due and len(self.partitions) - len(free) < IN_FLIGHT_MIN:
            fullest = max(free, key=lambda state: state.buffer.rows, default=None)
            if fullest and fullest.buffer.rows * EARLY_PARTS >= self._limits.rows_max:
                due = [fullest]
        for state in sorted(due, key=lambda state: state.buffer.oldest_read_at):
            batch = state.buffer.cut()
            if batch is not None:
                state.work = BatchWork(batch, state.route, state.progress, self._build)
                yield state.work

    def finished(self, work: BatchWork) -> None:
        """The batch is in place: its records are done."""
        state = self.state_of(work.batch)
        if state is not None and state.work is work:
            state.work = None
            state.done_offset = work.batch.last + 1

    def state_of(self, batch: Batch) -> PartitionState | None:
        """The partition of a batch, None where it has been given up."""
        return self.partitions.get((batch.source.topic, batch.source.partition))

    @property
    def held_bytes(self) -> int:
        """Bytes held for all partitions."""
        return sum(state.held_bytes for state in self.partitions.values())

    def pause_change(self) -> bool | None:
        """True: stop reading now. False: go on now. None: leave it as it is."""
        held = self.held_bytes
        if not self.paused and held > BUFFERED_BYTES_MAX:
            self.paused = True
            return True
        if self.paused and held < NEARLY_FULL_BYTES:
            self.paused = False
            return False
        return None

    @property
    def is_nearly_full(self) -> bool:
        """Whether so much is held that reading would not go on, had it paused."""
        return self.held_bytes > NEARLY_FULL_BYTES

    @property
    def waiting(self) -> int:
        """Records read and not yet dealt with, in all partitions."""
        return sum(state.waiting for state in self.partitions.values())


def _ascend(offsets: list[int]) -> bool:
    return all(map(lt, offsets, offsets[1:]))
