"""How far behind the worker is, asked of the broker and not of the process.

An agent that died silently leaves a process that looks alive; only records that wait while nothing is
applied show it. The same numbers say when a worker is idle.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from routekeel.streams.app.metrics import WorkerMetrics
from routekeel.streams.app.partitions import Partitions
from routekeel.streams.errors import ServiceUnavailable
from routekeel.streams.log_bounds import log_bounds
from routekeel.streams.settings import Settings
from routekeel.streams.topics import admin_client


class LagWatch:
    """Lag per assigned partition, as of the last refresh. A broker that is away keeps the old numbers."""

    def __init__(
        self,
        settings: Settings,
        partitions: Partitions,
        metrics: WorkerMetrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._topic = settings.topics.logits
        self._admin = admin_client(settings)
        self._partitions = partitions
        self._metrics = metrics
        self._clock = clock
        self.lag: dict[int, int] = {}
        self._shown: set[int] = set()
        self._started_at = clock()
        self._lagging_since: float | None = None
        self._caught_up_since: float | None = None

    async def refresh(self) -> None:
        """Ask for the ends of the assigned partitions."""
        assigned = sorted(self._partitions.assigned)
        ready = self._partitions.ready()
        if assigned:
            try:
                ends = await asyncio.get_running_loop().run_in_executor(None, self._ends, assigned)
            except ServiceUnavailable:
                return
            self.lag = {
                p: max(
                    0, end - (ready[p].processor.watermark.applied_offset + 1 if p in ready else 0)
                )
                for p, end in ends.items()
            }
        now = self._clock()
        caught_up = bool(assigned) and set(ready) >= set(assigned) and not any(self.lag.values())
        if caught_up and not any(o.processor.is_dirty for o in ready.values()):
            self._caught_up_since = self._caught_up_since or now
        else:
            self._caught_up_since = None
        self._lagging_since = (self._lagging_since or now) if any(self.lag.values()) else None
        for partition in self._shown - set(ready):
            self._metrics.forget_partition(partition)
        self._shown = set(ready)
        for partition, owned in ready.items():
            self._metrics.lag.labels(partition).set(self.lag.get(partition, 0))
            self._metrics.sessions.labels(partition).set(owned.processor.sessions)

    def stalled_for(self, progress_at: float) -> float:
        """Seconds for which records have waited while none was applied and no recovery got on.

        A partition that is being recovered lags by its whole log, however fast its state is read.
        """
        if self._lagging_since is None:
            return 0.0
        recovered_at = self._partitions.progress_at
        return self._clock() - max(self._lagging_since, progress_at, recovered_at)

    def idle_for(self, progress_at: float) -> float:
        """Seconds since everything was applied and durable; a worker without partitions is idle too."""
        if not self._partitions.assigned:
            return self._clock() - max(self._started_at, progress_at)
        if self._caught_up_since is None:
            return 0.0
        return self._clock() - max(self._caught_up_since, progress_at)

    def _ends(self, partitions: list[int]) -> dict[int, int]:
        bounds = log_bounds(self._settings, [(self._topic, p) for p in partitions], self._admin)
        return {partition: end for (_, partition), (_, end) in bounds.items()}
