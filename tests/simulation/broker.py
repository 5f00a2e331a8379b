"""A broker in memory: logs, one consumer group, and what a dying writer leaves behind."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field

from routekeel.streams.topology.changelog import ChangelogRecord
from routekeel.streams.topology.records import SourceRecord

TOPIC_ID = "log-1"


@dataclass
class Broker:
    """Partitions are numbers; `outputs[topic][partition]` holds (key, value) in the log's order."""

    rng: random.Random
    partitions: int
    logs: dict[int, list[SourceRecord]] = field(default_factory=dict)
    outputs: dict[str, dict[int, list[tuple[bytes | None, bytes]]]] = field(default_factory=dict)
    changelog: dict[int, list[ChangelogRecord]] = field(default_factory=dict)
    committed: dict[int, int] = field(default_factory=dict)
    late: list[deque[tuple[str, int, bytes | None, bytes]]] = field(default_factory=list)
    late_changelog: list[tuple[int, deque[ChangelogRecord]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for partition in range(self.partitions):
            self.logs[partition] = []
            self.changelog[partition] = []

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
            self.changelog[partition].append(rest.popleft())
        if stopped and rest:
            self.late_changelog.append((partition, rest))

    def late_arrivals(self, all_of_them: bool = False) -> None:
        """Stopped writers wake up: some of what they held arrives, in each one's order."""
        for buffered in self.late:
            count = len(buffered) if all_of_them else self.rng.randint(0, min(3, len(buffered)))
            for _ in range(count):
                self.append_output(*buffered.popleft())
        for partition, rest in self.late_changelog:
            count = len(rest) if all_of_them else self.rng.randint(0, min(2, len(rest)))
            for _ in range(count):
                self.changelog[partition].append(rest.popleft())
        self.late = [buffered for buffered in self.late if buffered]
        self.late_changelog = [entry for entry in self.late_changelog if entry[1]]
