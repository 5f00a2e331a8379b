"""This app with its state log, as `routekeel worker` runs it."""

from __future__ import annotations

import sys
import threading
import time

from routekeel.streams.app import run as app
from routekeel.streams.app.moment import Moment
from routekeel.streams.app.output import OutputProducer
from routekeel.streams.settings import Settings

from .task import Task, report

LOOK_S = 0.005


class WatchedOutput(OutputProducer):
    """Notes when everything handed over was acknowledged last: the app itself asks only at a checkpoint."""

    made: WatchedOutput

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        WatchedOutput.made = self
        self.drained, self.sending_s = Moment.now(), 0.0
        self.over = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        waits = False
        clock = time.pthread_getcpuclockid(self._sender._thread.ident or 0)
        while not self.over.wait(LOOK_S):
            had, waits = waits, self.records_waiting > 0
            if had and not waits:
                self.drained, self.sending_s = Moment.now(), time.clock_gettime(clock)


def run(task: Task) -> None:
    """Work until everything is read, then report the time from the first batch to the last durable output."""
    app.OutputProducer = WatchedOutput  # type: ignore[misc]
    ready: list[float] = []
    result = app.run_worker(
        task.settings, until_idle_s=1.0, on_ready=lambda _: ready.append(time.thread_time())
    )
    main_thread_s = time.thread_time() - ready[0]
    WatchedOutput.made.over.set()
    first, last = result.first_batch, WatchedOutput.made.drained
    assert first is not None
    seconds, cpu_s = last.at_s - first.at_s, last.cpu_s - first.cpu_s
    sending_s = WatchedOutput.made.sending_s
    report(result.records, seconds, cpu_s, main_thread_s=main_thread_s, sending_s=sending_s)


def serve(task: Task) -> None:
    """Work until SIGTERM; says on standard output where its health page is."""
    app.run_worker(task.settings, on_ready=lambda url: print(url, file=sys.stdout, flush=True))
