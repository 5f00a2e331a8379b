"""Recovery progress: added up over partitions, counted, and logged at most once a second."""

from __future__ import annotations

import logging

import pytest
from rich.console import Console

from routekeel.streams.app.metrics import WorkerMetrics
from routekeel.streams.app.recovery_progress import RecoveryProgress
from routekeel.streams.cli import serve


def value_of(metrics: WorkerMetrics, name: str) -> float | None:
    return metrics.registry.get_sample_value(f"routekeel_recovery_{name}")


def test_partitions_add_up_and_lines_are_a_second_apart(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    metrics, now, told = WorkerMetrics(), [100.0], []
    progress = RecoveryProgress(metrics, lambda *told_now: told.append(told_now), lambda: now[0])
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
    assert told[-1] == (1000, 1500), "what is finished still counts while others are being read"
    progress.update(1, 500, 500)
    progress.finished(1)
    assert told[-1] == (1500, 1500)
    assert value_of(metrics, "records_remaining") == 0
    progress.update(0, 0, 10)
    assert told[-1] == (0, 10), "the next takeover counts from the beginning"


def test_a_partition_that_is_given_up_leaves_nothing_to_go() -> None:
    metrics = WorkerMetrics()
    progress = RecoveryProgress(metrics)
    progress.update(3, 10, 1000)
    progress.finished(3)
    assert value_of(metrics, "records_remaining") == 0
    assert value_of(metrics, "records_read_total") == 10


def test_a_terminal_shows_a_bar_and_a_file_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Console(force_terminal=True, width=100, record=True)
    monkeypatch.setattr(serve, "stderr", terminal)
    with serve.recovery_shown() as show:
        assert show is not None
        show(4_000, 10_000)
    assert "4000/10000" in terminal.export_text()
    monkeypatch.setattr(serve, "stderr", Console(force_terminal=False))
    with serve.recovery_shown() as show:
        assert show is None
