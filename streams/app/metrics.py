"""The worker's Prometheus metrics; every drop, refusal and eviction has its counter."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from routekeel.streams.topology.records import BatchCounts

BATCH_BUCKETS = (1, 4, 16, 64, 256, 1024, 4096, 16384)
SECONDS_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


class WorkerMetrics:
    """One set of metrics in one registry. Label values are bounded: reasons and partitions only."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()

        self._of_input()
        self._of_outputs_and_state()
        self._of_recovery()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"routekeel_worker_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"routekeel_worker_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"routekeel_worker_{name}", text, buckets=buckets, registry=self.registry)

    def _of_input(self) -> None:
        self.records = self._counter("records_total", "Records taken from the logits topic.")
        self.skipped = self._counter(
            "records_skipped_total", "Records at or below the watermark, read again."
        )
        self.rows = self._counter("rows_total", "(token, layer) rows applied.")
        self.rows_repeated = self._counter(
            "rows_repeated_total", "Rows that had been applied before."
        )
        self.chunks_repeated = self._counter(
            "chunks_repeated_total", "Chunks that were repeats as a whole."
        )
        self.positions_missing = self._counter(
            "positions_missing_total", "Tokens missing before a chunk."
        )
        self.sequences_missing = self._counter(
            "sequences_missing_total", "Chunks missing by the producers' counts."
        )
        self.dropped_by_producer = self._counter(
            "dropped_by_producer_total", "Chunks that producers say they dropped."
        )
        self.dead_letters = self._counter(
            "dead_letters_total", "Records sent to the DLQ.", "reason"
        )
        self.state_resets = self._counter(
            "state_resets_total", "Sessions whose state began anew.", "reason"
        )
        self.evictions = self._counter("evictions_total", "Sessions evicted.", "reason")
        self.event_time_clamped = self._counter(
            "event_time_clamped_total", "Event times too far ahead of the log."
        )
        self.lost_to_retention = self._counter(
            "lost_to_retention_total", "Records that retention removed unread."
        )
        self.gaps_healed = self._counter(
            "gaps_healed_total", "Batches skipped and read again (rule 6)."
        )
        self.recreated_topics = self._counter(
            "topic_recreated_total", "Times the logits topic was found recreated."
        )
        self.input_bytes = self._counter("input_bytes_total", "Bytes of the records taken.")
        self.batch_records = self._histogram("batch_records", "Records in a batch.", BATCH_BUCKETS)
        self.step_s = self._histogram("step_seconds", "Time to apply a batch.", SECONDS_BUCKETS)
        self.lag = self._gauge("lag_records", "Records not yet applied.", "partition")

    def _of_outputs_and_state(self) -> None:
        self.token_rows_left_out = self._counter(
            "token_rows_left_out_total",
            "Chunks of sampled sessions whose rows per token would not fit a record.",
        )
        self.outputs = self._counter("outputs_total", "Records sent.", "topic")
        self.output_bytes = self._counter(
            "output_bytes_total", "Bytes sent before compression, all topics."
        )
        self.checkpoints = self._counter("checkpoints_total", "Checkpoints written.")
        self.changelog_bytes = self._counter(
            "changelog_bytes_total", "Bytes written to the changelog."
        )
        self.checkpoint_s = self._histogram(
            "checkpoint_seconds", "Time to make a checkpoint durable.", SECONDS_BUCKETS
        )
        self.sessions = self._gauge("sessions", "Sessions held.", "partition")

    def _of_recovery(self) -> None:
        self.recoveries = self._counter(
            "recoveries_total", "Partitions recovered from the changelog."
        )
        self.recovery_records_read = Counter(
            "routekeel_recovery_records_read_total",
            "Changelog records read to take partitions over.",
            registry=self.registry,
        )
        self.recovery_records_remaining = Gauge(
            "routekeel_recovery_records_remaining",
            "Changelog records still to read before every partition is ready.",
            registry=self.registry,
        )
        self.foreign_writes = self._counter(
            "foreign_checkpoints_total", "Checkpoints between whose records another process wrote."
        )
        self.standby_partitions = self._gauge(
            "standby_partitions", "Partitions followed as a standby."
        )
        self.standby_records = self._counter("standby_records_total", "Changelog records followed.")
        self.standby_lag = self._gauge(
            "standby_lag_records", "Changelog records a standby is behind."
        )
        self.standby_failures = self._counter(
            "standby_failures_total", "Times the following of changelogs ended with an error."
        )
        self.recovery_s = self._histogram(
            "recovery_seconds", "Time to recover a partition.", SECONDS_BUCKETS
        )

    def count(self, counts: BatchCounts) -> None:
        """Add one batch's counts."""
        self.records.inc(counts.records)
        self.skipped.inc(counts.skipped)
        self.rows.inc(counts.rows)
        self.rows_repeated.inc(counts.rows_repeated)
        self.chunks_repeated.inc(counts.chunks_repeated)
        self.positions_missing.inc(counts.positions_missing)
        self.sequences_missing.inc(counts.sequences_missing)
        self.dropped_by_producer.inc(counts.dropped_by_producer)
        self.event_time_clamped.inc(counts.event_time_clamped)
        for reason, count in counts.dead_letters.items():
            self.dead_letters.labels(reason).inc(count)
        for reason, count in counts.state_resets.items():
            self.state_resets.labels(reason).inc(count)
        if counts.evicted_idle:
            self.evictions.labels("idle").inc(counts.evicted_idle)
        if counts.evicted_cap:
            self.evictions.labels("cap").inc(counts.evicted_cap)
