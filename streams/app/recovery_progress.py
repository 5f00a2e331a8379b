"""How far the recovery of all partitions has come, for the log, the metrics and a terminal.

Updates come from the threads that read; a line is logged at most every second, however many
partitions there are.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from routekeel.streams.app.metrics import WorkerMetrics

log = logging.getLogger(__name__)

LOG_INTERVAL_S = 1.0


class RecoveryProgress:
    """Adds up what the partitions being recovered have read and have left.

    `read` and `total` are changelog records of the recovery that is going on.
    """

    def __init__(
        self,
        metrics: WorkerMetrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metrics = metrics
        self._clock = clock
        self._lock = threading.Lock()
        self._open: dict[int, tuple[int, int]] = {}
        self._finished = (0, 0)
        self._logged_at = clock()
        self.read = self.total = 0

    def update(self, partition: int, read: int, total: int) -> None:
        """So many records of a partition's rest of the changelog are read."""
        with self._lock:
            before, _ = self._open.get(partition, (0, 0))
            self._open[partition] = (read, total)
            self._metrics.recovery_records_read.inc(max(0, read - before))
            self._tell()

    def finished(self, partition: int) -> None:
        """The partition is recovered, or is given up."""
        with self._lock:
            read, _ = self._open.pop(partition, (0, 0))
            done, total = self._finished
            self._finished = (done + read, total + read)
            self._tell()
            if not self._open:
                self._finished = (0, 0)

    def _tell(self) -> None:
        read = self._finished[0] + sum(done for done, _ in self._open.values())
        total = self._finished[1] + sum(total for _, total in self._open.values())
        self.read, self.total = read, total
        self._metrics.recovery_records_remaining.set(total - read)
        now = self._clock()
        if self._open and now - self._logged_at >= LOG_INTERVAL_S:
            self._logged_at = now
            log.info(
                "recovering: %d of %d changelog records read, %d partitions to go",
                read, total, len(self._open),
            )  # fmt: skip
