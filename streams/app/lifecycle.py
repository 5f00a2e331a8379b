"""The worker's life between start and end: what is waited for, and what may end the wait.

Whatever a step waits for (the group's first assignment, a checkpoint, the next tick), a signal and a
failure are noticed at once; and whatever goes wrong ends as an error that says what to do.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException

from routekeel.streams.app.lag import LagWatch
from routekeel.streams.app.worker import StreamWorker
from routekeel.streams.errors import RoutekeelError
from routekeel.streams.settings import Settings

log = logging.getLogger(__name__)

TICK_S: Final = 0.25
LAST_CHECKPOINT_S: Final = 30.0
CANCEL_S: Final = 5.0
STOP_S: Final = 20.0
AGAIN: Final = "start it again; it goes on where the changelog says"
REMEDIES: Final = {
    KafkaError.INVALID_TIMESTAMP: "set this machine's clock, or run `routekeel topics`: topics made by it "
    "take the broker's time; then start it again",
}
"""For errors that would come again as they are."""


class WorkerFailed(RoutekeelError):
    """The worker ended because of an error; a supervisor should start it again."""


def stop_on_signals() -> asyncio.Event:
    """Set by SIGTERM and SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


async def start_app(worker: StreamWorker, stop: asyncio.Event) -> bool:
    """Start Faust, which waits for the first assignment; False where a stop came first.

    Raises RoutekeelError where the worker failed meanwhile. A broker that dies before the group is
    joined makes Faust wait for ever: then the stop is what ends it.
    """
    starting = asyncio.ensure_future(worker.app.start())
    try:
        while not starting.done():
            await _first_of(stop, starting, worker.failed)
            _raise_failure(worker)
            if stop.is_set():
                return False
        await starting
        return True
    finally:
        if not starting.done():
            starting.cancel()
            await asyncio.wait({starting}, timeout=CANCEL_S)


async def watch(
    settings: Settings,
    worker: StreamWorker,
    lag: LagWatch,
    stop: asyncio.Event,
    until_idle_s: float | None,
    tell: Callable[[], None],
) -> None:
    """Return when asked to stop or idle long enough; raise RoutekeelError when something broke.

    `tell` is called at every tick.
    """
    next_look = 0.0
    while not stop.is_set():
        await _first_of(stop, worker.failed)
        _raise_failure(worker)
        await checkpoint(worker, stop)
        now = time.monotonic()
        if now >= next_look:
            next_look = now + settings.worker.checkpoint_interval_s
            await lag.refresh()
            await worker.check_topic()
        tell()
        if lag.stalled_for(worker.progress_at) > settings.worker.stall_timeout_s:
            raise WorkerFailed(
                f"records wait (lag {lag.lag}) but none was applied for {settings.worker.stall_timeout_s:.0f} s",
                "start the worker again; it goes on where the changelog says",
            )
        if until_idle_s is not None and lag.idle_for(worker.progress_at) >= until_idle_s:
            return


async def checkpoint(worker: StreamWorker, stop: asyncio.Event | None = None) -> None:
    """With `stop` write what is due and wait as long as it takes until that is set; without, the last
    checkpoint.

    From the stop on, or from the start, LAST_CHECKPOINT_S are left. Raises WorkerFailed after that.
    """
    write = worker.checkpoint_now if stop is None else worker.checkpoint_if_due
    writing = asyncio.ensure_future(write())
    while stop is not None and not stop.is_set() and not writing.done():
        await _first_of(stop, writing)
    await asyncio.wait({writing}, timeout=LAST_CHECKPOINT_S)
    if not writing.done():
        writing.cancel()
        raise WorkerFailed(
            f"the last checkpoint was not durable within {LAST_CHECKPOINT_S:.0f} s; is Kafka away?",
            "start it again when Kafka answers: what is not durable is read and sent again, with the same ids",
        )
    await writing


async def stop_app(worker: StreamWorker) -> None:
    """Stop Faust, within bounds."""
    try:
        await asyncio.wait_for(worker.app.stop(), STOP_S)
    except (TimeoutError, Exception):
        log.warning("Faust did not stop cleanly", exc_info=True)


def failed(failure: BaseException) -> RoutekeelError:
    """What went wrong as an error for people; the traceback goes to the log."""
    if isinstance(failure, RoutekeelError):
        return failure
    log.error("the worker failed", exc_info=failure)
    if not isinstance(failure, KafkaException):
        return WorkerFailed(f"the worker failed: {type(failure).__name__}: {failure}", AGAIN)
    error = failure.args[0]
    return WorkerFailed(f"the worker failed: {error.str()}", REMEDIES.get(error.code(), AGAIN))


def _raise_failure(worker: StreamWorker) -> None:
    failure = worker.failed.result() if worker.failed.done() else worker.partitions.failure()
    failure = failure or worker.app.crash_reason
    if failure is not None:
        raise failed(failure) from failure


async def _first_of(stop: asyncio.Event, *others: asyncio.Future[Any]) -> None:
    """Wait for a stop or any of the others, at most one tick."""
    stopping = asyncio.create_task(stop.wait())
    waiting: list[asyncio.Future[Any]] = [stopping, *others]
    await asyncio.wait(waiting, timeout=TICK_S, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
