"""What a sink tells about itself: totals for its caller, progress while it runs, health."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from routekeel.streams.sinks.work import WorkCounts

STALLED_AFTER_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class SinkProgress:
    """How far a running sink is. `lag` counts records in the log that are not in place yet."""

    rows: dict[str, int]
    batches: int
    repeats: int
    dead_letters: int
    lag: int
    held_bytes: int
    partitions: int
    last_error: str


@dataclass(frozen=True, slots=True)
class SinkResult:
    """What a sink did until it ended.

    `rows` and `repeats_by_table` are by table; `repeats` counts records that were dropped because
    their rows were there; `idle` says that it ended because there was nothing more to do.
    """

    rows: dict[str, int]
    records: int
    batches: int
    inserts: int
    repeats: int
    repeats_by_table: dict[str, int]
    dead_letters: int
    retries: int
    seconds: float
    idle: bool


@dataclass(slots=True)
class Totals:
    """The running sums, and what health is judged by. Written by the consumer's thread."""

    rows: Counter[str] = field(default_factory=Counter)
    repeats: Counter[str] = field(default_factory=Counter)
    anchors: frozenset[str] = frozenset()
    records: int = 0
    batches: int = 0
    inserts: int = 0
    dead_letters: int = 0
    retries: int = 0
    last_error: str = ""
    looped_at: float = 0.0
    progress_at: float = 0.0
    busy: bool = False
    ready: bool = False
    lag: int = 0
    partitions: int = 0

    def count(self, counts: WorkCounts) -> None:
        """Add what became of one batch."""
        self.rows.update(counts.rows)
        self.repeats.update(counts.repeats)
        self.batches += 1
        self.inserts += counts.inserts
        self.dead_letters += counts.letters.total()
        self.retries += counts.failures

    @property
    def records_repeated(self) -> int:
        """Records dropped as repeats: as their topic's fullest table sees them."""
        return sum(n for table, n in self.repeats.items() if table in self.anchors)

    def health(self, now: float) -> dict[str, Any]:
        """Whether there is progress: a sink that only lives is not well."""
        silent_s = now - self.looped_at
        stalled_s = now - self.progress_at if self.busy else 0.0
        return {
            "ok": silent_s < STALLED_AFTER_S and stalled_s < STALLED_AFTER_S,
            "ready": self.ready,
            "stalled_s": round(stalled_s, 1),
            "silent_s": round(silent_s, 1),
            "partitions": self.partitions,
            "lag": self.lag,
            "batches": self.batches,
            "rows": dict(self.rows),
            "last_error": self.last_error,
        }

    def progress(self, held_bytes: int) -> SinkProgress:
        """The account so far."""
        return SinkProgress(
            dict(self.rows),
            self.batches,
            self.records_repeated,
            self.dead_letters,
            self.lag,
            held_bytes,
            self.partitions,
            self.last_error,
        )

    def result(self, seconds: float, idle: bool) -> SinkResult:
        """The final account."""
        return SinkResult(
            dict(self.rows),
            self.records,
            self.batches,
            self.inserts,
            self.records_repeated,
            {table: n for table, n in self.repeats.items() if n},
            self.dead_letters,
            self.retries,
            seconds,
            idle,
        )
