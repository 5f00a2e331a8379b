"""Does ClickHouse hold every record of the log, once? Source offsets against rows, per partition.

Every record of the logits topic must have a telemetry row per layer, or a dead letter, and a route where
one was due by the cadence in the settings. What a live worker or sink still has before it is pending, which
is said apart from what is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError
from confluent_kafka.admin import AdminClient

from routekeel.streams.history.audit_blocks import (
    BLOCK_OFFSETS,
    OFFSETS_SHOWN,
    Held,
    count_block,
    first_holes,
)
from routekeel.streams.history.groups import GroupState, group_state
from routekeel.streams.history.store import connect, unavailable
from routekeel.streams.log_bounds import log_bounds
from routekeel.streams.settings import Settings
from routekeel.streams.topics import admin_client, describe, require
from routekeel.streams.topology.from_settings import cadence_of

OnProgress = Callable[[int, int], None]
"""Called with (offsets compared, offsets in all)."""


@dataclass(slots=True)
class PartitionAudit:
    """One partition: the log's bounds, what the tables hold of it, what is amiss.

    `missing` and `pending` count records without rows or dead letter: pending are those that a live
    worker or sink has not come to yet.
    """

    partition: int
    start: int
    end: int
    rows: int = 0
    dlq: int = 0
    duplicated: int = 0
    missing: int = 0
    pending: int = 0
    weights_missing: int = 0
    weights_duplicated: int = 0
    missing_first: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class AuditReport:
    """The whole topic. `rows` and `dlq` count distinct source offsets of the present log.

    `outputs_refused` counts telemetry and weights records that the sink dead-lettered.
    """

    topic: str
    topic_id: str
    partitions: tuple[PartitionAudit, ...]
    outputs_refused: int = 0

    def _sum(self, name: str) -> int:
        return sum(getattr(partition, name) for partition in self.partitions)

    @property
    def events(self) -> int:
        """Records in the log."""
        return self._sum("end") - self._sum("start")

    @property
    def rows(self) -> int:
        """Records that have telemetry rows."""
        return self._sum("rows")

    @property
    def dlq(self) -> int:
        """Records that the worker dead-lettered."""
        return self._sum("dlq")

    @property
    def missing(self) -> int:
        """Records with neither, although worker and sink have passed them or do not run."""
        return self._sum("missing")

    @property
    def pending(self) -> int:
        """Records with neither that worker or sink are about to come to."""
        return self._sum("pending")

    @property
    def duplicated(self) -> int:
        """Telemetry rows beyond the first of their (record, layer)."""
        return self._sum("duplicated")

    @property
    def ok(self) -> bool:
        """Everything is there, once."""
        amiss = ("missing", "pending", "duplicated", "weights_missing", "weights_duplicated")
        return not any(self._sum(name) for name in amiss)

    def to_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return {
            "ok": self.ok,
            "events": self.events,
            "rows": self.rows,
            "missing": self.missing,
            "duplicated": self.duplicated,
            "dlq": self.dlq,
            "pending": self.pending,
            "weights_missing": self._sum("weights_missing"),
            "weights_duplicated": self._sum("weights_duplicated"),
            "outputs_refused": self.outputs_refused,
            "topic": self.topic,
            "topic_id": self.topic_id,
            "partitions": [asdict(partition) for partition in self.partitions],
        }

    def render(self) -> str:
        """The report for a terminal (rich markup)."""
        verdict = "[bold green]ok[/]" if self.ok else "[bold red]not ok[/]"
        lines = [
            f"{verdict}  {self.events:,} events in {self.topic}: {self.rows:,} with rows, "
            f"{self.dlq:,} dead letters, {self.missing:,} missing, {self.duplicated:,} rows twice"
        ]
        if self.pending:
            lines.append(f"  {self.pending:,} still in flight: worker or sink is behind, but alive")
        missing, twice = self._sum("weights_missing"), self._sum("weights_duplicated")
        if missing or twice:
            lines.append(f"  weights: {missing:,} records without all layers, {twice:,} rows twice")
        if self.outputs_refused:
            lines.append(
                f"  {self.outputs_refused:,} outputs were refused by the sink (dead_letters)"
            )
        lines += [
            f"  partition {p.partition}: {p.missing:,} missing, the first at "
            + ", ".join(map(str, p.missing_first))
            for p in self.partitions
            if p.missing
        ]
        return "\n".join(lines)


def audit(settings: Settings, on_progress: OnProgress | None = None) -> AuditReport:
    """Compare the present log with the tables. Raises ServiceUnavailable, ConfigurationError."""
    topic = settings.topics.logits
    info = require(settings, [topic])[topic]
    admin = admin_client(settings)
    # The groups before the ends: what they have passed by then must be in the tables afterwards.
    worker = group_state(admin, settings.worker.app_id, topic, info.partitions)
    sink = _sink_state(settings, admin, settings.topics.telemetry)
    weights_sink = _sink_state(settings, admin, settings.topics.weights)
    bounds = log_bounds(settings, [(topic, p) for p in range(info.partitions)], admin)
    cadence = cadence_of(settings.worker)
    total = sum(end - start for start, end in bounds.values())
    done = 0
    client = connect(settings.clickhouse, database=settings.clickhouse.database)
    try:
        partitions = []
        for (_, partition), (start, end) in bounds.items():
            found = PartitionAudit(partition, start, end)
            held, holes = Held(), []
            for low in range(start, end, BLOCK_OFFSETS):
                high = min(low + BLOCK_OFFSETS, end)
                block = count_block(client, info.topic_id, partition, low, high, cadence)
                held.add(block)
                if block.accounted < high - low:
                    holes.append((low, high))
                done += high - low
                if on_progress is not None:
                    on_progress(done, total)
            judge(found, held, worker, sink, weights_sink)
            _show_holes(client, info.topic_id, found, holes)
            partitions.append(found)
        refused = client.query("SELECT count() FROM dead_letters WHERE stage = 'sink'").first_row[0]
    except ClickHouseError as error:
        raise unavailable(settings.clickhouse, error) from error
    finally:
        client.close()
    return AuditReport(topic, info.topic_id, tuple(partitions), int(refused))


def _sink_state(settings: Settings, admin: AdminClient, topic: str) -> GroupState:
    info = describe(settings, [topic], admin).get(topic)
    return group_state(admin, settings.sink.group_id, topic, info.partitions if info else 0)


def judge(
    found: PartitionAudit,
    held: Held,
    worker: GroupState,
    sink: GroupState,
    weights_sink: GroupState,
) -> None:
    """Split what is not accounted for into what is missing and what is on its way."""
    found.rows, found.dlq, found.duplicated = held.rows, held.letters, held.duplicated
    found.weights_duplicated = held.weights_duplicated
    after = held.last + 1 if held.accounted else found.start
    # Up to the worker's commit the outputs are in the sink's topics; above it the worker has not
    # come to the record, or has not said so yet.
    passed = min(max(worker.committed.get(found.partition, 0), after), found.end)
    with_sink = passed - after if sink.live and sink.behind(found.partition) else 0
    with_worker = found.end - passed if worker.live else 0
    found.pending = with_sink + with_worker
    found.missing = found.end - found.start - held.accounted - found.pending
    if weights_sink.live and weights_sink.behind(found.partition):
        found.pending = max(found.pending, held.weights_missing)
    else:
        found.weights_missing = held.weights_missing


def _show_holes(
    client: Client, topic_id: str, found: PartitionAudit, blocks: list[tuple[int, int]]
) -> None:
    for low, high in blocks:
        wanted = min(OFFSETS_SHOWN, found.missing) - len(found.missing_first)
        if wanted <= 0:
            return
        found.missing_first += first_holes(client, topic_id, found.partition, low, high, wanted)
