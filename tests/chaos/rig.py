"""Two kinds of processes on a real stack that can be killed, stopped and started again at any moment."""

from __future__ import annotations

import random
import signal
import subprocess
import threading
import time

import psutil

from routekeel.infra.local.stack import LocalStack
from routekeel.streams.settings import Settings
from tests.stack.system import System, end_of

WORKER = {"worker.checkpoint_interval_s": 0.5, "worker.batch_records_max": 500}
IDLE_S = "3"
DRAIN_S = 300.0


class Rig:
    """`workers` workers and `sinks` sinks of one system. `log` is what was done, in order."""

    def __init__(
        self, stack: LocalStack, system: System, rng: random.Random, workers: int, sinks: int
    ) -> None:
        self.stack, self.system, self.rng = stack, system, rng
        self.settings: Settings = system.settings
        self.log: list[str] = []
        self._started_at = time.monotonic()
        self._lock = threading.Lock()
        self.members: dict[str, subprocess.Popen[bytes]] = {}
        for command, count in (("worker", workers), ("sink", sinks)):
            for number in range(count):
                self.start(f"{command}-{number}")

    def say(self, what: str) -> None:
        """Note what was done and when."""
        with self._lock:
            self.log.append(f"{time.monotonic() - self._started_at:6.1f} s  {what}")

    def start(self, name: str) -> None:
        """Start a member; its name says what it is."""
        command = name.split("-")[0]
        self.members[name] = self.system.start(command, **(WORKER if command == "worker" else {}))

    def kill(self, name: str) -> None:
        """kill -9, and start again as a supervisor would."""
        self.say(f"kill -9 {name}")
        self.system.kill(self.members[name])
        self.start(name)

    def pause(self, name: str, seconds: float) -> None:
        """SIGSTOP for so long: a machine that hangs and comes back."""
        self.say(f"stop {name} for {seconds:.0f} s")
        process = self.members[name]
        process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        process.send_signal(signal.SIGCONT)

    def restart_dead(self) -> list[str]:
        """Start again what has ended by itself, as a supervisor would; who that was."""
        ended = [name for name, process in self.members.items() if process.poll() is not None]
        for name in ended:
            self.say(f"{name} had ended with {self.members[name].returncode}")
            self.start(name)
        return ended

    def kill_service(self, name: str, away_s: float = 0.0) -> None:
        """kill -9 of the broker or the store, and up again after `away_s`."""
        self.say(f"kill -9 {name}, away for {away_s:.0f} s")
        (service,) = [s for s in self.stack.status() if s.name == name]
        assert service.pid is not None
        process = psutil.Process(service.pid)
        process.kill()
        process.wait(10)
        time.sleep(away_s)
        self.stack.up()

    def outputs(self) -> int:
        """How many telemetry records there are."""
        return end_of(self.settings, self.settings.topics.telemetry)

    def drain(self) -> None:
        """End everything with what is left applied and stored."""
        for process in self.members.values():
            if process.poll() is None:
                process.terminate()
        for process in self.members.values():
            process.wait(60)
        for command in ("worker", "sink"):
            last = self.system.start(command, "--until-idle", IDLE_S)
            assert last.wait(DRAIN_S) == 0, self.system.log_of(last)[-4000:]
        self.say("drained")
