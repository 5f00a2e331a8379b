"""Follows the changelogs of partitions that other workers own, so that taking over reads only the tail.

Whom a worker stands by for is Faust's assignor's decision: it spreads `worker.standby_replicas`
copies of each partition over the group, and hands a partition to a standby when its owner is gone.
A standby is never more than a cache: a takeover reads on to the end of the log before anything else.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from routekeel.streams.app.metrics import WorkerMetrics
from routekeel.streams.topology.changelog_reader import ChangelogReader

log = logging.getLogger(__name__)

RETRY_S = 5.0

Followed = Callable[[int, int], None]
"""Called with (records read since the last call, records still to read), all partitions together."""

Follow = Callable[[Mapping[int, ChangelogReader], threading.Event, Followed], Awaitable[None]]
"""Feeds the readers until the event is set; the readers may be used again when it has returned."""


class Standbys:
    """The standby partitions of one worker: at most one reading at a time."""

    def __init__(self, follow: Follow, metrics: WorkerMetrics) -> None:
        self._follow = follow
        self._metrics = metrics
        self._stop, self._stopping = threading.Event(), asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self, readers: Mapping[int, ChangelogReader]) -> None:
        """Follow these partitions until `stop`; nothing may be followed at present."""
        assert self._task is None, "stop() comes before start()"
        self._metrics.standby_partitions.set(len(readers))
        if readers:
            self._stop, self._stopping = threading.Event(), asyncio.Event()
            self._task = asyncio.ensure_future(self._run(dict(readers), self._stop))

    async def stop(self) -> None:
        """Stop reading; when this returns, the stores and readers are the caller's again."""
        task, self._task = self._task, None
        if task is not None:
            self._stop.set()
            self._stopping.set()
            await task
            self._metrics.standby_partitions.set(0)
            self._metrics.standby_lag.set(0)

    async def _run(self, readers: Mapping[int, ChangelogReader], stop: threading.Event) -> None:
        def followed(records: int, remaining: int) -> None:
            self._metrics.standby_records.inc(records)
            self._metrics.standby_lag.set(remaining)

        while not stop.is_set():
            try:
                await self._follow(readers, stop, followed)
            except Exception as error:
                # The copy is behind from here on, not wrong: a takeover reads what it lacks. A worker
                # that applies records must not end because of it.
                self._metrics.standby_failures.inc()
                log.warning("partitions %s are not followed now: %s", sorted(readers), error)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), RETRY_S)
