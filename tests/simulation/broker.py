"""A broker in memory: logs, one consumer group, what a dying writer leaves behind, and compaction."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from routekeel.streams.topology.changelog import (
    ChangelogRecord,
    header_version,
    session_version,
)
from routekeel.streams.topology.records import SourceRecord
from routekeel.streams.topology.watermark import WATERMARK_KEY, Watermark
from tests.simulation.turns import Process

TOPIC_ID = "log-1"
SLEEP_MAX = 30
HOUR = 3
"""Finished checkpoints of owners that take longer than compaction leaves a record alone."""


@dataclass
class LateCheckpoint:
    """What a stopped process will write of a checkpoint when it wakes, `sleep` chances from now."""

    partition: int
    rest: deque[ChangelogRecord]
    sleep: int


@dataclass
class Broker:
    """Partitions are numbers; `outputs[topic][partition]` holds (key, value) in the log's order."""

    rng: random.Random
    partitions: int
    topic_id: str | None = TOPIC_ID
    """Of the logits topic; None while there is none."""
    logs: dict[int, list[SourceRecord]] = field(default_factory=dict)
    log_starts: dict[int, int] = field(default_factory=dict)
    """What is below was removed by retention; the oracle still has it."""
    outputs: dict[str, dict[int, list[tuple[bytes | None, bytes]]]] = field(default_factory=dict)
    changelog: dict[int, list[ChangelogRecord | None]] = field(default_factory=dict)
    committed: dict[int, int] = field(default_factory=dict)
    late: list[deque[tuple[str, int, bytes | None, bytes]]] = field(default_factory=list)
    late_changelog: list[LateCheckpoint] = field(default_factory=list)
    owns: Callable[[Process, int], bool] = lambda process, partition: True
    """Whether a process is who the group says owns a partition."""
    proven: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    """Per partition, the versions of the checkpoints that owners have finished."""
    stamps: dict[int, list[int]] = field(default_factory=dict)
    """For every record of a changelog, how many of those there were when it arrived."""
    compacted: int = 0
    rewritten: int = 0
    """Values written again because an old one lay over them."""

    def __post_init__(self) -> None:
        for partition in range(self.partitions):
            self.logs[partition], self.log_starts[partition] = [], 0
            self.changelog[partition] = []
            self.proven[partition], self.stamps[partition] = [], []

    def append_changelog(self, partition: int, record: ChangelogRecord) -> None:
        """A record of the state log arrives."""
        self.changelog[partition].append(record)
        self.rewritten += record.value is not None and bool(record.headers)
        self.stamps[partition].append(len(self.proven[partition]))

    def checkpointed(self, partition: int, process: Process, record: ChangelogRecord) -> None:
        """A process knows that its checkpoint is durable."""
        if self.owns(process, partition):
            mark = Watermark.decode(record.value or b"")
            self.proven[partition].append((mark.log_epoch, mark.applied_offset))

    def compact(self, partition: int) -> None:
        """What the cleaner does: of each key only the newest record stays.

        It leaves alone what is younger than min.compaction.lag.ms. Within that hour an owner has
        finished several checkpoints and is beyond whatever was in the log; here that is what an hour is.
        """
        log, proven, end = self.changelog[partition], self.proven[partition], 0
        for offset, record in enumerate(log if proven else []):
            if self.stamps[partition][offset] > len(proven) - HOUR or (
                record is not None and version_of(record) > max(proven)
            ):
                break
            end = offset + 1
        self.compacted += clean(log, end)

    def retain(self, partition: int) -> None:
        """What retention does: the log's beginning goes, of what the group has committed."""
        start, committed = self.log_starts[partition], self.committed.get(partition, 0)
        self.log_starts[partition] = self.rng.randint(start, max(start, committed))

    def after_compaction(self, partition: int, share: float) -> list[ChangelogRecord | None]:
        """The changelog when everything in it is old and the cleaner has done the first `share` of it."""
        log = list(self.changelog[partition])
        clean(log, round(share * len(log)))
        return log

    def append_output(self, topic: str, partition: int, key: bytes | None, value: bytes) -> None:
        """A record arrives."""
        self.outputs.setdefault(topic, {}).setdefault(partition, []).append((key, value))

    def leave(self, buffered: deque[tuple[str, int, bytes | None, bytes]], stopped: bool) -> None:
        """What a process had handed to its client when it died or was stopped.

        Of a dead one a prefix had been sent; a stopped one sends all of it when it wakes up, long
        after others have taken over.
        """
        for _ in range(self.rng.randint(0, len(buffered))):
            self.append_output(*buffered.popleft())
        if stopped and buffered:
            self.late.append(buffered)

    def leave_changelog(self, partition: int, rest: deque[ChangelogRecord], stopped: bool) -> None:
        """The same for an unfinished checkpoint."""
        for _ in range(self.rng.randint(0, len(rest))):
            self.append_changelog(partition, rest.popleft())
        if stopped and rest:
            self.late_changelog.append(
                LateCheckpoint(partition, rest, self.rng.randint(0, SLEEP_MAX))
            )

    def late_arrivals(self, all_of_them: bool = False) -> None:
        """Stopped writers wake up: some of what they held arrives, in each one's order."""
        for buffered in self.late:
            count = len(buffered) if all_of_them else self.rng.randint(0, min(3, len(buffered)))
            for _ in range(count):
                self.append_output(*buffered.popleft())
        for late in self.late_changelog:
            late.sleep -= 1
            count = self.rng.randint(0, min(2, len(late.rest))) if late.sleep < 0 else 0
            for _ in range(len(late.rest) if all_of_them else count):
                self.append_changelog(late.partition, late.rest.popleft())
        self.late = [buffered for buffered in self.late if buffered]
        self.late_changelog = [late for late in self.late_changelog if late.rest]


def clean(log: list[ChangelogRecord | None], end: int) -> int:
    """Leave each key's newest record below `end`; how many went."""
    newest: dict[bytes, int] = {}
    removed = 0
    for offset, record in enumerate(log[:end]):
        if record is not None:
            if record.key in newest:
                log[newest[record.key]] = None
                removed += 1
            newest[record.key] = offset
    return removed


def version_of(record: ChangelogRecord) -> tuple[int, int]:
    """The version of any record of a changelog."""
    if record.headers:
        return header_version(record.headers[0][1])
    if record.key == WATERMARK_KEY:
        mark = Watermark.decode(record.value or b"")
        return mark.log_epoch, mark.applied_offset
    return session_version(record.value or b"")
