"""How far a running worker is, for whoever watches it from inside the process."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import Counter

from routekeel.streams.app.lag import LagWatch
from routekeel.streams.app.metrics import WorkerMetrics
from routekeel.streams.app.partitions import Partitions
from routekeel.streams.app.recovery_progress import RecoveryProgress


@dataclass(frozen=True, slots=True)
class WorkerProgress:
    """Records applied so far, records that wait, sessions held, records sent to the DLQ, and how many
    records of the state log the recovery going on has to read yet.
    """

    records: int
    lag: int
    sessions: int
    dead_letters: int
    to_recover: int


def worker_progress(
    records: int,
    watch: LagWatch,
    partitions: Partitions,
    metrics: WorkerMetrics,
    recovery: RecoveryProgress,
) -> WorkerProgress:
    """The account as of now; the lag is that of the watch's last look."""
    ready = partitions.ready().values()
    return WorkerProgress(
        records,
        sum(watch.lag.values()),
        sum(owned.processor.sessions for owned in ready),
        int(total_of(metrics.dead_letters)),
        recovery.total - recovery.read,
    )


def total_of(counter: Counter) -> float:
    """A counter's value summed over its labels."""
    samples = [sample for metric in counter.collect() for sample in metric.samples]
    return sum(sample.value for sample in samples if sample.name.endswith("_total"))
