"""The status line of worker and sink: on a terminal only, with a rate of the last seconds."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from routekeel.streams.app.metrics import WorkerMetrics
from routekeel.streams.app.progress import worker_progress
from routekeel.streams.app.recovery_progress import RecoveryProgress
from routekeel.streams.cli.live_line import LiveLine


class Clock:
    now = 10.0

    def __call__(self) -> float:
        return self.now


def terminal(is_one: bool) -> tuple[Console, io.StringIO]:
    written = io.StringIO()
    return Console(file=written, force_terminal=is_one, width=100, color_system=None), written


def drawn(written: io.StringIO) -> str:
    """What was written since the last look."""
    text = written.getvalue()
    written.seek(0)
    written.truncate()
    return text


def test_the_rate_is_of_the_last_seconds_and_a_stop_shows() -> None:
    console, written = terminal(True)
    clock = Clock()
    with LiveLine(console, "records", shown=True, clock=clock) as line:
        for second in range(1, 11):
            clock.now += 1
            line.show(second * 1000, {"lag": 12_345, "DLQ": 0})
        text = drawn(written)
        assert "1,000 records/s · lag 12,345 · DLQ 0" in text
        for _ in range(4):
            clock.now += 1
            line.show(10_000, {"lag": 12_345, "DLQ": 0})
        assert " 0 records/s" in drawn(written).replace("\r", " ").replace("\x1b[2K", " ")
    assert "\x1b[2K" in drawn(written)  # the line is taken away at the end


def test_it_is_not_redrawn_more_often_than_is_of_use() -> None:
    console, written = terminal(True)
    clock = Clock()
    with LiveLine(console, "rows", shown=True, clock=clock) as line:
        line.show(1, {})
        drawn(written)
        for _ in range(10):
            clock.now += 0.01
            line.show(2, {})
        assert drawn(written) == ""


@pytest.mark.parametrize(("is_terminal", "shown"), [(False, True), (True, False)])
def test_nothing_is_written_without_a_terminal_or_with_json(is_terminal: bool, shown: bool) -> None:
    console, written = terminal(is_terminal)
    with LiveLine(console, "rows", shown=shown) as line:
        line.show(1, {"lag": 1})
    assert written.getvalue() == ""


def test_the_workers_account_sums_partitions_and_reasons() -> None:
    metrics = WorkerMetrics()
    metrics.dead_letters.labels("bad_body").inc(2)
    metrics.dead_letters.labels("empty_value").inc()
    partitions = SimpleNamespace(
        ready=lambda: {
            p: SimpleNamespace(processor=SimpleNamespace(sessions=p + 1)) for p in range(3)
        }
    )
    watch = SimpleNamespace(lag={0: 4, 1: 5})
    recovery = RecoveryProgress(metrics)
    recovery.update(5, 40, 100)
    at = worker_progress(77, watch, partitions, metrics, recovery)  # type: ignore[arg-type]
    assert (at.records, at.lag, at.sessions, at.dead_letters, at.to_recover) == (77, 9, 6, 3, 60)
