"""Recovery progress: added up over partitions, counted, and logged at most once a second."""

from __future__ import annotations

import logging

import pytest

from routekeel.streams.app.metrics import WorkerMetrics
from routekeel.streams.app.recovery_progress import RecoveryProgress


def value_of(metrics: WorkerMetrics, name: str) -> float | None:
    return metrics.registry.get_sample_value(f"routekeel_recovery_{name}")


def test_partitions_add_up_and_lines_are_a_second_apart(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    metrics, now = WorkerMetrics(), [100.0]
    progress = RecoveryProgress(metrics, lambda: now[0])
    progress.update(0, 0, 1000)
    progress.update(1, 0, 500)
    for step in range(1, 11):
        now[0] += 0.3
        progress.update(0, 100 * step, 1000)
    assert value_of(metrics, "records_read_total") == 1000
    assert value_of(metrics, "records_remaining") == 500
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        "recovering: 400 of 1500 changelog records read, 2 partitions to go",
        "recovering: 800 of 1500 changelog records read, 2 partitions to go",
    ]
    progress.finished(0)
    assert (progress.read, progress.total) == (1000, 1500), (
        "what is finished still counts while others are being read"
    )
    progress.update(1, 500, 500)
    progress.finished(1)
    assert (progress.read, progress.total) == (1500, 1500)
    assert value_of(metrics, "records_remaining") == 0
    progress.update(0, 0, 10)
    assert (progress.read, progress.total) == (0, 10), "the next takeover counts from the beginning"


def test_a_partition_that_is_given_up_leaves_nothing_to_go() -> None:
    metrics = WorkerMetrics()
    progress = RecoveryProgress(metrics)
    progress.update(3, 10, 1000)
    progress.finished(3)
    assert value_of(metrics, "records_remaining") == 0
    assert value_of(metrics, "records_read_total") == 10
