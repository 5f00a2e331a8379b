"""The worker's start and end: signals and failures are noticed whatever is being waited for."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from confluent_kafka import KafkaError, KafkaException

from routekeel.streams.app import lifecycle, run
from routekeel.streams.app.lifecycle import (
    WorkerFailed,
    checkpoint,
    failed,
    start_app,
    stop_on_signals,
    watch,
)
from routekeel.streams.errors import ConfigurationError, ServiceUnavailable
from routekeel.streams.runtime_file import runtime_file
from routekeel.streams.settings import load_settings
from routekeel.streams.sinks import run as sink_run
from routekeel.streams.sinks.metrics import SinkMetrics

TIMED_OUT = KafkaException(KafkaError(KafkaError._TIMED_OUT))


class Worker:
    """As much of a StreamWorker as the lifecycle touches; its steps wait for events of the test."""

    def __init__(self) -> None:
        self.assigned, self.durable = asyncio.Event(), asyncio.Event()
        self.starting, self.writing = asyncio.Event(), asyncio.Event()
        self.failed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self.recovery: BaseException | None = None
        self.partitions = SimpleNamespace(failure=lambda: self.recovery)
        self.app = SimpleNamespace(crash_reason=None, start=self._start)
        self.progress_at = 0.0
        self.was_cancelled = False

    async def _start(self) -> None:
        self.starting.set()
        try:
            await self.assigned.wait()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise

    async def checkpoint_now(self) -> None:
        self.writing.set()
        await self.durable.wait()

    async def check_topic(self) -> None: ...

    async def checkpoint_if_due(self) -> None:
        await self.checkpoint_now()


class Calm:
    """A lag watch that sees nothing wrong."""

    lag: dict[int, int] = {}  # noqa: RUF012

    async def refresh(self) -> None: ...

    def stalled_for(self, progress_at: float) -> float:
        return 0.0


@pytest.fixture
async def worker() -> Any:
    return Worker()


async def test_a_worker_that_gets_its_partitions_has_started(worker: Any) -> None:
    worker.assigned.set()
    assert await start_app(worker, asyncio.Event()) is True


async def test_sigterm_ends_the_wait_for_the_first_assignment(worker: Any) -> None:
    stop = stop_on_signals()
    try:
        started = asyncio.create_task(start_app(worker, stop))
        await worker.starting.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        assert await started is False
        assert worker.was_cancelled
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().remove_signal_handler(number)


async def test_a_failure_ends_the_wait_for_the_first_assignment(worker: Any) -> None:
    started = asyncio.create_task(start_app(worker, asyncio.Event()))
    await worker.starting.wait()
    worker.failed.set_result(TIMED_OUT)
    with pytest.raises(WorkerFailed, match="the worker failed: Local: Timed out") as raised:
        await started
    assert raised.value.hint
    assert worker.was_cancelled


async def test_a_failed_recovery_ends_the_wait_too(worker: Any) -> None:
    worker.recovery = ServiceUnavailable("cannot read the state log", "routekeel up")
    with pytest.raises(ServiceUnavailable, match="state log"):
        await start_app(worker, asyncio.Event())


async def test_what_starting_raises_comes_through(worker: Any) -> None:
    async def start() -> None:
        raise OSError("no route to the broker")

    worker.app.start = start
    with pytest.raises(OSError, match="no route"):
        await start_app(worker, asyncio.Event())


async def test_a_checkpoint_that_fails_between_ticks_ends_the_watch(
    worker: Any, tmp_path: Path
) -> None:
    async def fail() -> None:
        raise TIMED_OUT

    worker.checkpoint_if_due = fail
    settings = load_settings(None, {"stack.state_dir": str(tmp_path)}, {}).settings
    lag: Any = Calm()
    with pytest.raises(KafkaException) as raised:
        await watch(settings, worker, lag, asyncio.Event(), None, lambda: None)
    error = failed(raised.value)
    assert isinstance(error, WorkerFailed)
    assert error.exit_code == 1 and error.hint


async def test_a_stop_is_seen_while_a_checkpoint_waits_for_the_broker(
    worker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "LAST_CHECKPOINT_S", 0.01)
    settings = load_settings(None, {"stack.state_dir": str(tmp_path)}, {}).settings
    lag: Any = Calm()
    stop = asyncio.Event()
    watching = asyncio.create_task(watch(settings, worker, lag, stop, None, lambda: None))
    await worker.writing.wait()
    stop.set()
    with pytest.raises(WorkerFailed, match="last checkpoint was not durable") as raised:
        await watching
    assert "Kafka" in raised.value.hint


async def test_the_last_checkpoint_is_waited_for_within_its_bound(
    worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = asyncio.create_task(checkpoint(worker))
    await worker.writing.wait()
    worker.durable.set()
    await last
    worker.durable.clear()
    monkeypatch.setattr(lifecycle, "LAST_CHECKPOINT_S", 0.01)
    with pytest.raises(WorkerFailed, match="last checkpoint was not durable"):
        await checkpoint(worker)


@pytest.fixture
def taken_port() -> Any:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        yield busy.getsockname()[1]


async def test_a_taken_port_of_the_worker_is_told(taken_port: int) -> None:
    settings = load_settings(None, {"worker.web_port": taken_port}, {}).settings
    with pytest.raises(ConfigurationError, match=f":{taken_port}: ") as raised:
        await run._serve(settings, web.Application())
    assert "worker.web_port" in raised.value.hint


def test_a_taken_port_of_the_sink_is_told(taken_port: int) -> None:
    settings = load_settings(None, {"sink.web_port": taken_port}, {}).settings
    nothing: Any = None
    with pytest.raises(Exception, match=f":{taken_port}: ") as raised:
        sink_run._pages(settings, SinkMetrics(), nothing, lambda: 0.0)
    assert "sink.web_port" in getattr(raised.value, "hint", "")


def test_the_runtime_file_is_there_while_the_process_runs(tmp_path: Path) -> None:
    with runtime_file(tmp_path / "state", "worker", "http://127.0.0.1:1") as path:
        assert path == tmp_path / "state" / "run" / f"worker-{os.getpid()}.json"
        assert json.loads(path.read_text()) == {"pid": os.getpid(), "url": "http://127.0.0.1:1"}
    assert not path.exists()


def test_a_state_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file in the way")
    with (
        pytest.raises(ConfigurationError, match="cannot write") as raised,
        runtime_file(tmp_path / "state", "sink", "http://127.0.0.1:1"),
    ):
        pytest.fail("the block must not run")
    assert "stack.state_dir" in raised.value.hint
