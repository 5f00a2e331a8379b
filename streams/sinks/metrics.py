"""The sink's Prometheus metrics; every repeat, refusal, retry and gap has its counter."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from routekeel.streams.label_set import LabelSet
from routekeel.streams.sinks.work import WorkCounts

SECONDS_BUCKETS: Final = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


class SinkMetrics:
    """One set of metrics in one registry. Labels are tables, reasons and partitions only."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self._reason = LabelSet()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"routekeel_sink_{name}", text, labels, registry=self.registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"routekeel_sink_{name}", text, labels, registry=self.registry)

        self.records = counter("records_total", "Records read.", "topic")
        self.rows = counter("rows_total", "Rows inserted.", "table")
        self.batches = counter("batches_total", "Batches that are in place.", "topic")
        self.inserts = counter("inserts_total", "Inserts that succeeded.")
        self.insert_bytes = counter("insert_bytes_total", "Bytes of those inserts.")
        self.repeats = counter("repeats_dropped_total", "Records that a table had.", "table")
        self.dead_letters = counter("dead_letters_total", "Records sent to the DLQ.", "reason")
        self.unstorable = counter("unstorable_total", "Dead letters that ClickHouse refuses.")
        self.splits = counter("splits_total", "Batches halved to find a refused record.")
        self.retries = counter("retries_total", "Actions that failed and were tried again.")
        self.registry_failures = counter("registry_failures_total", "Times it did not answer.")
        self.offsets_missing = counter("offsets_missing_total", "Offsets lost before reading.")
        self.assignments = counter("assignments_total", "Assignments taken up.")
        self.recreated = counter("topic_recreated_total", "Times a topic was found recreated.")
        self.insert_s = Histogram(
            "routekeel_sink_insert_seconds",
            "Time of an insert, by table.",
            ("table",),
            buckets=SECONDS_BUCKETS,
            registry=self.registry,
        )
        self.lag = gauge("lag_records", "Records not yet in place.", "topic", "partition")
        self.held_bytes = gauge("held_bytes", "Bytes of records read and not yet in place.")
        self.paused = gauge("paused", "1 while reading pauses because too much is held.")

    def count(self, topic: str, counts: WorkCounts) -> None:
        """Add what became of one batch."""
        self.batches.labels(topic).inc()
        self.inserts.inc(counts.inserts)
        self.retries.inc(counts.failures)
        self.splits.inc(counts.splits)
        self.unstorable.inc(counts.unstorable)
        for table, rows in counts.rows.items():
            self.rows.labels(table).inc(rows)
        for table, repeats in counts.repeats.items():
            self.repeats.labels(table).inc(repeats)
        for reason, letters in counts.letters.items():
            self.dead_letters.labels(self._reason(reason)).inc(letters)
