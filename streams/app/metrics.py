"""The worker's Prometheus metrics; every drop, refusal and eviction has its counter."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from routekeel.streams.label_set import LabelSet
from routekeel.streams.topology.records import BatchCounts

BATCH_BUCKETS = (1, 4, 16, 64, 256, 1024, 4096, 16384)
SECONDS_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


class WorkerMetrics:
    """One set of metrics in one registry. Label values are bounded: reasons and partitions only."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self._reason = LabelSet()

        counter, gauge, histogram = self._counter, self._gauge, self._histogram
        self.records = counter("records_total", "Records taken from the logits topic.")
        self.skipped = counter(
            "records_skipped_total", "Records at or below the watermark, read again."
        )
        self.rows = counter("rows_total", "(token, layer) rows applied.")
        self.rows_repeated = counter("rows_repeated_total", "Rows that had been applied before.")
        self.chunks_repeated = counter(
            "chunks_repeated_total", "Chunks that were repeats as a whole."
        )
        self.positions_missing = counter(
            "positions_missing_total", "Tokens missing before a chunk."
        )
        self.sequences_missing = counter(
            "sequences_missing_total", "Chunks missing by the producers' counts."
        )
        self.dropped_by_producer = counter(
            "dropped_by_producer_total", "Chunks that producers say they dropped."
        )
        self.dead_letters = counter("dead_letters_total", "Records sent to the DLQ.", "reason")
        self.state_resets = counter(
            "state_resets_total", "Sessions whose state began anew.", "reason"
        )
        self.evictions = counter("evictions_total", "Sessions evicted.", "reason")
        self.event_time_clamped = counter(
            "event_time_clamped_total", "Event times too far ahead of the log."
        )
        self.lost_to_retention = counter(
            "lost_to_retention_total", "Records that retention removed unread."
        )
        self.gaps_healed = counter("gaps_healed_total", "Batches skipped and read again (rule 6).")
        self.recreated_topics = counter(
            "topic_recreated_total", "Times the logits topic was found recreated."
        )
        self.token_rows_left_out = counter(
            "token_rows_left_out_total",
            "Chunks of sampled sessions whose rows per token would not fit a record.",
        )
        self.outputs = counter("outputs_total", "Records sent.", "topic")
        self.output_bytes = counter(
            "output_bytes_total", "Bytes sent before compression, all topics."
        )
        self.holes = counter(
            "offsets_without_record_total",
            "Offsets below others' that never had a record: transactions' markers.",
        )
        self.input_bytes = counter("input_bytes_total", "Bytes of the records taken.")
        self.batch_records = histogram("batch_records", "Records in a batch.", BATCH_BUCKETS)
        self.step_s = histogram("step_seconds", "Time to apply a batch.", SECONDS_BUCKETS)
        self.sessions = gauge("sessions", "Sessions held.", "partition")
        self.lag = gauge("lag_records", "Records not yet applied.", "partition")
        self._add_state_log()

    def _add_state_log(self) -> None:
        counter, gauge, histogram = self._counter, self._gauge, self._histogram
        self.tombstones = counter("tombstones_total", "Evictions written to the changelog.")
        self.checkpoints = counter("checkpoints_total", "Checkpoints written.")
        self.changelog_bytes = counter("changelog_bytes_total", "Bytes written to the changelog.")
        self.checkpoint_s = histogram(
            "checkpoint_seconds", "Time to make a checkpoint durable.", SECONDS_BUCKETS
        )
        self.recoveries = counter("recoveries_total", "Partitions recovered from the changelog.")
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
        self.foreign_writes = counter(
            "foreign_checkpoints_total", "Checkpoints between whose records another process wrote."
        )
        self.written_again = counter(
            "changelog_keys_written_again_total",
            "Keys written again because another process's old record came after theirs.",
        )
        self.standby_partitions = gauge("standby_partitions", "Partitions followed as a standby.")
        self.standby_records = counter("standby_records_total", "Changelog records followed.")
        self.standby_lag = gauge("standby_lag_records", "Changelog records a standby is behind.")
        self.standby_failures = counter(
            "standby_failures_total", "Times the following of changelogs ended with an error."
        )
        self.recovery_s = histogram(
            "recovery_seconds", "Time to recover a partition.", SECONDS_BUCKETS
        )

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"routekeel_worker_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"routekeel_worker_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"routekeel_worker_{name}", text, buckets=buckets, registry=self.registry)

    def forget_partition(self, partition: int) -> None:
        """A partition that is somebody else's now has no numbers here any more."""
        self.sessions.remove(partition)
        self.lag.remove(partition)

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
            self.dead_letters.labels(self._reason(reason)).inc(count)
        for reason, count in counts.state_resets.items():
            self.state_resets.labels(self._reason(reason)).inc(count)
        if counts.evicted_idle:
            self.evictions.labels("idle").inc(counts.evicted_idle)
        if counts.evicted_cap:
            self.evictions.labels("cap").inc(counts.evicted_cap)
