"""What a contender is told, and the stopwatch all of them are measured with.

Measured is from the first event in hand to the last durable output, by the wall and in CPU seconds of
the whole process: starting, compiling, joining a group and stopping are nobody's cost.
"""

from __future__ import annotations

import json
import resource
import time
from dataclasses import dataclass
from typing import Any

from routekeel.streams.settings import Settings


@dataclass(frozen=True)
class Task:
    """The settings (topics, broker), the name for groups and state logs, and the events to expect."""

    settings: Settings
    tag: str
    events: int
    steps: int
    layers: int
    experts: int
    folder: str

    def consumer_config(self) -> dict[str, Any]:
        """What a librdkafka consumer needs to be kept busy; for every contender that has one."""
        return {
            "queued.max.messages.kbytes": 262_144,
            "fetch.message.max.bytes": 8 * 2**20,
        }

    def producer_config(self) -> dict[str, Any]:
        """As this app's own producer is set."""
        return {
            "linger.ms": self.settings.worker.linger_ms,
            "compression.type": "lz4",
            "enable.idempotence": True,
            "message.max.bytes": self.settings.topics.record_bytes_max,
            "queue.buffering.max.messages": 2_000_000,
        }


class Stopwatch:
    """Started at the first event, read at the last durable output."""

    def __init__(self) -> None:
        self.running = False
        self._at_s = self._cpu_s = 0.0

    def start(self) -> None:
        """The first event is in hand."""
        self.running = True
        self._at_s, self._cpu_s = time.monotonic(), time.process_time()

    def read(self) -> tuple[float, float]:
        """(wall seconds, CPU seconds) since the start."""
        return time.monotonic() - self._at_s, time.process_time() - self._cpu_s


def report(events: int, seconds: float, cpu_s: float, **more: float) -> None:
    """Print the result the parent reads."""
    rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    result = {"events": events, "seconds": seconds, "cpu_s": cpu_s, "rss_mb": rss_mb, **more}
    print(json.dumps(result), flush=True)
