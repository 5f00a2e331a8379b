"""A system of its own on the shared local stack: topics, group, database and child processes per test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from confluent_kafka import Consumer, TopicPartition

from routekeel.infra.local.stack import LocalStack
from routekeel.streams.log_bounds import log_bounds
from routekeel.streams.settings import Settings, load_settings
from routekeel.streams.topics import admin_client, changelog_topic, ensure_topics

WAIT_S = 120.0
LOGS: dict[int, Path] = {}
"""Where each process that was started writes, by pid."""


class System:
    """Settings with names of their own, and the processes that were started with them."""

    def __init__(self, stack: LocalStack | None, folder: Path, name: str, **flags: Any) -> None:
        """On the local stack, or without one where `flags` say where the services are."""
        self.folder = folder
        self.flags: dict[str, Any] = {
            **({"stack.state_dir": str(stack.config.state_dir)} if stack is not None else {}),
            "worker.app_id": f"{name}-app",
            "worker.store_dir": str(folder / "not-yet-there" / "states"),
            "sink.group_id": f"{name}-sink",
            "clickhouse.database": name.replace("-", "_"),
            "topics.partitions": 4,
            "worker.session_timeout_s": 6,
            "worker.heartbeat_interval_s": 1,
            # Weights after every chunk, so that tests can count them; the demo has the defaults.
            "worker.weights_every_tokens": 1,
            "worker.state_every_tokens": 1,
            "sink.session_timeout_s": 10,
            "sink.batch_interval_s": 0.3,
            **{
                f"topics.{t}": f"{name}.{t}"
                for t in ("logits", "telemetry", "weights", "policy", "alerts", "dlq")
            },
            **flags,
        }
        self.environment: dict[str, str] = {}
        self._processes: list[subprocess.Popen[bytes]] = []
        self._logs: list[Path] = []

    @property
    def settings(self) -> Settings:
        """The settings as the processes see them."""
        return load_settings(flags=self.flags, environ={}).settings

    def prepare(self) -> Settings:
        """Create topics and tables."""
        from routekeel.streams.history.store import apply_schema, connect

        settings = self.settings
        ensure_topics(settings)
        apply_schema(connect(settings.clickhouse), settings.clickhouse)
        return settings

    def line(self, command: str, *arguments: str, **flags: Any) -> list[str]:
        """The command line of `routekeel COMMAND` with these settings."""
        line = [sys.executable, "-m", "routekeel.streams.cli.main", command, *arguments]
        for key, value in {**self.flags, **flags}.items():
            line += ["--set", f"{key}={value}"]
        return line

    def start(self, command: str, *arguments: str, **flags: Any) -> subprocess.Popen[bytes]:
        """Start `routekeel COMMAND` with these settings; its output goes to a file in the folder."""
        log = self.folder / f"{command}-{len(self._processes)}.log"
        environment = {k: v for k, v in os.environ.items() if not k.startswith("ROUTEKEEL_")}
        with log.open("wb") as output:
            process = subprocess.Popen(
                self.line(command, *arguments, **flags),
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**environment, **self.environment},
            )
        return self.watch(process, log)

    def watch(self, process: subprocess.Popen[bytes], log: Path) -> subprocess.Popen[bytes]:
        """Have the process ended with the system; `log` is where its output goes."""
        self._processes.append(process)
        self._logs.append(log)
        LOGS[process.pid] = log
        return process

    def run(self, command: str, *arguments: str, timeout_s: float = WAIT_S, **flags: Any) -> int:
        """Run a command to its end; its exit code."""
        return self.start(command, *arguments, **flags).wait(timeout_s)

    def log_of(self, process: subprocess.Popen[bytes]) -> str:
        """What a process has written."""
        path = self._logs[self._processes.index(process)]
        return path.read_text(encoding="utf-8", errors="replace")

    def pages(self, process: subprocess.Popen[bytes]) -> str:
        """The address of /metrics and /health of a worker or sink, once it serves them."""
        folder = self.settings.stack.state_dir / "run"

        def found() -> list[Path]:
            return list(folder.glob(f"*-{process.pid}.json"))

        wait_until(lambda: bool(found()), "the runtime file", alive=[process])
        return str(json.loads(found()[0].read_text(encoding="utf-8"))["url"])

    @staticmethod
    def kill(process: subprocess.Popen[bytes]) -> None:
        """kill -9."""
        process.send_signal(signal.SIGKILL)
        process.wait()

    def close(self) -> None:
        """End every process that is still there."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
                process.wait()


class MakeSystem(Protocol):
    """The `system` fixture: makes a System by name, with settings over the defaults."""

    def __call__(self, name: str, **flags: Any) -> System: ...


def read_topic(settings: Settings, topic: str) -> Iterator[Any]:
    """Every message of a topic, partition by partition, from the beginning to the present end."""
    consumer = Consumer(
        settings.kafka.client_config()
        | {"group.id": "test-reader", "enable.auto.commit": False, "auto.offset.reset": "earliest"}
    )
    partitions = range(settings.topics.partitions)
    try:
        bounds = log_bounds(settings, [(topic, partition) for partition in partitions])
        for (_, partition), (low, high) in sorted(bounds.items()):
            consumer.assign([TopicPartition(topic, partition, low)])
            position = low
            while position < high:
                for message in consumer.consume(min(10_000, high - position), timeout=1.0):
                    assert message.error() is None, message.error()
                    position = message.offset() + 1
                    yield message
    finally:
        consumer.close()


def log_ends(settings: Settings, topic: str) -> dict[int, int]:
    """The offset after the last record, by partition."""
    bounds = log_bounds(settings, [(topic, p) for p in range(settings.topics.partitions)])
    return {partition: high for (_, partition), (_, high) in bounds.items()}


def end_of(settings: Settings, topic: str) -> int:
    """How many records the topic has had, over all partitions."""
    return sum(log_ends(settings, topic).values())


def delete_records(settings: Settings, topic: str, before: Mapping[int, int]) -> None:
    """Remove everything below these offsets, as retention would."""
    places = [TopicPartition(topic, partition, offset) for partition, offset in before.items()]
    admin = admin_client(settings)  # held on to: without its owner no answer would come
    for future in admin.delete_records(places).values():
        future.result()


def wait_until(
    condition: Callable[[], bool],
    what: str,
    timeout_s: float = WAIT_S,
    alive: Sequence[subprocess.Popen[bytes]] = (),
) -> None:
    """Poll a condition that another process makes true; fails at once when one of `alive` ended."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s:.0f} s for {what}"
        for process in alive:
            code = process.poll()
            assert code is None, (
                f"waited for {what}, but it ended with {code}:\n{_end_of_log(process)}"
            )
        time.sleep(0.1)


def _end_of_log(process: subprocess.Popen[bytes]) -> str:
    log = LOGS.get(process.pid)
    return log.read_text(errors="replace")[-4_000:] if log and log.exists() else str(process.args)


__all__ = [
    "MakeSystem",
    "System",
    "changelog_topic",
    "delete_records",
    "end_of",
    "log_ends",
    "read_topic",
    "wait_until",
]
