"""This app with its state log, as `routekeel worker` runs it."""

from __future__ import annotations

import sys
import time

from routekeel.streams.app.run import run_worker

from .task import Task, report


def run(task: Task) -> None:
    """Work until everything is read, then report what the worker says of itself."""
    ready: list[float] = []
    result = run_worker(
        task.settings,
        until_idle_s=1.0,
        on_ready=lambda _: ready.append(time.thread_time()),
    )
    main_thread_s = time.thread_time() - ready[0]
    report(result.records, result.busy_s, result.busy_cpu_s, main_thread_s=main_thread_s)


def serve(task: Task) -> None:
    """Work until SIGTERM; says on standard output where its health page is."""
    run_worker(task.settings, on_ready=lambda url: print(url, file=sys.stdout, flush=True))
