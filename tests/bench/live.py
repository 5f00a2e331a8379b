"""Workers of this app that wait, are paused while events are written, and are then let go at once.

Several workers can be timed from a common start only when all of them have joined and have their
partitions. Paused by SIGSTOP they neither take part in writing the events nor leave the group.
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil
from confluent_kafka import Consumer, TopicPartition

from .bench_topics import RunTopics
from .cases import Bench, contender_command, cpu_s
from .load import Shape

START_S, WORK_S, POLL_S = 120.0, 1800.0, 0.05
SESSION_TIMEOUT_S = 300  # a paused worker sends no heartbeats


@dataclass(frozen=True)
class Lap:
    """What passed between letting workers go and the last durable output."""

    seconds: float
    worker_cpu_s: float
    broker_cpu_s: float
    rss_mb: float


class Workers:
    """Running workers of one application."""

    def __init__(self, bench: Bench, topics: RunTopics, processes: list[psutil.Popen]) -> None:
        self._topics, self._processes = topics, processes
        self._broker = bench.broker()
        self._let_go = (0.0, 0.0, 0.0)
        # Only asks for the group's offsets, and never joins it.
        self._group = Consumer(
            topics.settings.kafka.client_config() | {"group.id": topics.settings.worker.app_id}
        )

    def wait_until_shared(self, urls: list[str]) -> None:
        """Wait until every worker is ready and has its equal share of the partitions."""
        share = self._topics.settings.topics.partitions // len(urls)

        def shared() -> bool:
            pages = [_health(url) for url in urls]
            return all(page.get("ready") and len(page["partitions"]) == share for page in pages)

        self._wait(shared, START_S, "the workers did not get their partitions")

    def wait_until_durable(self) -> None:
        """Wait until the group has committed the whole topic, which follows the last checkpoint."""
        topic = self._topics.settings.topics.logits
        end = self._topics.ends(topic)
        partitions = range(self._topics.settings.topics.partitions)
        mine = [TopicPartition(topic, partition) for partition in partitions]

        def committed() -> bool:
            offsets = [found.offset for found in self._group.committed(mine, timeout=15)]
            return sum(max(0, offset) for offset in offsets) >= end

        self._wait(committed, WORK_S, "the workers did not finish")

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The workers stand still within."""
        for process in self._processes:
            process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._let_go = (time.monotonic(), self._cpu(), cpu_s(self._broker))
            for process in self._processes:
                process.send_signal(signal.SIGCONT)

    def lap(self, telemetry: int) -> Lap:
        """What passed from the end of `paused` until there are so many Telemetry records in all."""
        began, before, broker = self._let_go
        topic = self._topics.settings.topics.telemetry
        self._wait(lambda: self._topics.ends(topic) >= telemetry, WORK_S, "outputs are missing")
        seconds = time.monotonic() - began
        broker = cpu_s(self._broker) - broker
        self.wait_until_durable()
        rss = sum(process.memory_info().rss for process in self._processes) / 2**20
        return Lap(seconds, self._cpu() - before, broker, rss)

    def stop(self) -> None:
        """End them as a supervisor does."""
        self._group.close()
        for process in self._processes:
            if process.is_running():
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in self._processes:
            try:
                process.wait(60)
            except psutil.TimeoutExpired:
                process.kill()

    def _cpu(self) -> float:
        return sum(cpu_s(process) for process in self._processes)

    def _wait(self, reached: Any, limit_s: float, else_text: str) -> None:
        deadline = time.monotonic() + limit_s
        while not reached():
            ended = [p.pid for p in self._processes if p.poll() is not None]
            if ended or time.monotonic() > deadline:
                raise SystemExit(f"{else_text} ({len(ended)} of them ended)")
            time.sleep(POLL_S)  # the broker and other processes cannot be awaited


def _health(url: str) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:
            return dict(json.load(answer))
    except OSError:
        return {}


@contextmanager
def workers(bench: Bench, topics: RunTopics, count: int, shape: Shape) -> Iterator[Workers]:
    """`count` workers that are ready and share the partitions; stopped at the end."""
    command = contender_command("serve", topics.tag, 0, shape)
    environment = topics.environment() | {"PYTHONUNBUFFERED": "1"}
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    processes = [psutil.Popen(command, env=environment, **quiet) for _ in range(count)]
    running = Workers(bench, topics, processes)
    try:
        urls = [process.stdout.readline().strip() for process in processes]
        if not all(urls):
            raise SystemExit("a worker did not start; run `routekeel worker` to see why")
        running.wait_until_shared(urls)
        yield running
    finally:
        running.stop()
