"""Measures from outside how long a chunk takes from emit to a row that a query sees."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np

POLL_S = 0.1


class RowWatch:
    """Polls ClickHouse for this run's chunks and notes when each was first visible."""

    def __init__(self, client: Any, database: str, prefix: str) -> None:
        self._client = client
        self._query = (
            f"SELECT session_id, sequence, toUnixTimestamp64Micro(any(event_time_us)) FROM `{database}`.telemetry "
            "WHERE startsWith(session_id, {prefix:String}) GROUP BY session_id, sequence"
        )
        self._prefix = prefix
        self._latency_ms: dict[tuple[str, int], float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="row-watch", daemon=True)

    def start(self) -> None:
        """Start polling."""
        self._thread.start()

    @property
    def visible(self) -> int:
        """Chunks with rows so far."""
        return len(self._latency_ms)

    def wait_for(self, chunks: int, timeout_s: float) -> bool:
        """Wait until that many chunks are visible."""
        deadline = time.monotonic() + timeout_s
        while self.visible < chunks and time.monotonic() < deadline:
            time.sleep(POLL_S / 2)
        return self.visible >= chunks

    def stop(self) -> None:
        """Stop polling."""
        self._stop.set()
        self._thread.join(10)

    def percentile_ms(self, percent: float) -> float | None:
        """Latency in ms, the polling interval included; None before the first row."""
        values = list(self._latency_ms.values())
        return round(float(np.percentile(values, percent)), 1) if values else None

    def _poll(self) -> None:
        while not self._stop.wait(POLL_S):
            rows = self._client.query(self._query, parameters={"prefix": self._prefix}).result_rows
            now_us = time.time_ns() // 1000
            for session, sequence, emitted_us in rows:
                self._latency_ms.setdefault((session, sequence), (now_us - emitted_us) / 1000)
