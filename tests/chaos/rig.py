"""Workers and sinks on a real stack that can be killed, stopped and started again at any moment.

A supervisor thread starts again what ends by itself, as systemd or Kubernetes would, and counts it.
"""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from routekeel.infra.local.stack import LocalStack, StackError
from routekeel.streams.settings import Settings
from tests.chaos.clocks import Clocks
from tests.stack.services import kill_service, pid_of
from tests.stack.system import System, end_of, wait_until

IDLE_S = "3"
DRAIN_S = 300.0
END_S = 60.0
RESTART_DELAY_S = 2.0
READY_S = 240.0
UP_S = 240.0
UP_AGAIN_S = 2.0
SELF_END_S = 10.0
JOIN_S = 30.0
NEEDS = {"registry": {"kafka"}}
"""The stack brings up what a service needs, too: a broker that is away must not come back by that."""


class Over(Exception):
    """The run is being ended: what was to be done next is not done."""


class Rig:
    """`workers` workers and `sinks` sinks of one system. `log` is what was done, in order."""

    def __init__(
        self,
        stack: LocalStack,
        system: System,
        workers: int,
        sinks: int,
        state_folder: Path | None = None,
        clocks: Clocks | None = None,
    ) -> None:
        self.stack, self.system = stack, system
        self.settings: Settings = system.settings
        self.log: list[str] = []
        self.restarts = 0
        self._clocks = clocks
        self._state_folder = state_folder or system.folder / "states"
        self._started_at = time.monotonic()
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._away: Counter[str] = Counter()
        self._supervisor = threading.Thread(target=self._supervise, name="supervisor", daemon=True)
        self.members: dict[str, subprocess.Popen[bytes]] = {}
        for command, count in (("worker", workers), ("sink", sinks)):
            for number in range(count):
                self.start(f"{command}-{number}")
        self._supervisor.start()

    def say(self, what: str) -> None:
        """Note what was done and when."""
        with self._lock:
            self.log.append(f"{time.monotonic() - self._started_at:6.1f} s  {what}")

    @property
    def is_over(self) -> bool:
        """Whether the run is being ended."""
        return self._over.is_set()

    def wait(self, seconds: float) -> None:
        """Let so much time pass. Raises Over."""
        if self._over.wait(seconds):
            raise Over

    def start(self, name: str) -> None:
        """Start a member; its name says what it is. Each worker has a state folder of its own. Raises Over."""
        command = name.split("-")[0]
        flags: dict[str, Any] = {}
        if command == "worker":
            flags = {"worker.store_dir": str(self._state_folder / name)}
        with self._lock:
            if self._over.is_set():
                raise Over
            if self._clocks is not None:
                self.system.environment = self._clocks.environment(name)
            self.members[name] = self.system.start(command, **flags)

    def ready(self, name: str) -> bool:
        """Whether a member has come so far that it serves its pages and joins its group."""
        pid = self.members[name].pid
        path = self.settings.stack.state_dir / "run" / f"{name.split('-')[0]}-{pid}.json"
        return path.exists()

    def wait_ready(self, *names: str) -> None:
        """Wait until these members, or all, are ready; a member that ends meanwhile is started again."""
        for name in names or tuple(self.members):
            wait_until(lambda name=name: self.ready(name), f"{name} to start", READY_S)  # type: ignore[misc]

    def kill(self, name: str) -> None:
        """kill -9, and start again as a supervisor would."""
        with self._lock:
            self.say(f"kill -9 {name}")
            self.system.kill(self.members[name])
            self.start(name)

    def pause(self, name: str, seconds: float) -> None:
        """SIGSTOP for so long: a machine that hangs and comes back."""
        with self._lock:
            process = self.members[name]
            process.send_signal(signal.SIGSTOP)
        self.say(f"stop {name} for {seconds:.0f} s")
        self.wait(seconds)
        process.send_signal(signal.SIGCONT)
        self.say(f"{name} goes on")

    def pass_through(self, name: str, seconds: float) -> None:
        """A member that joins and is killed or ended soon after."""
        self.start(name)
        deadline = time.monotonic() + JOIN_S
        while not self.ready(name) and time.monotonic() < deadline:
            self.wait(0.1)
        self.say(f"{name} joins" if self.ready(name) else f"{name} had no time to join")
        self.wait(seconds)
        with self._lock:
            process = self.members.pop(name)
            process.send_signal(signal.SIGTERM)
        self.say(f"{name} leaves")
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.say(f"{name} did not end; kill -9")
            self.system.kill(process)

    def _supervise(self) -> None:
        while not self._over.wait(0.2):
            with self._lock:
                ended = {n: p for n, p in self.members.items() if p.poll() is not None}
            for name, process in ended.items():
                self.say(f"{name} had ended with {process.returncode}")
                self._over.wait(RESTART_DELAY_S)
                with self._lock, suppress(Over):
                    if self.members.get(name) is process:
                        self.start(name)
                        self.restarts += 1

    def kill_service(self, name: str, away_s: float = 0.0) -> None:
        """kill -9 of the broker, the registry or the store, and up again after `away_s`."""
        with self._lock:
            self._away[name] += 1
        if (
            pid_of(self.stack, name) is None
        ):  # another fault has it; it stays away as long as this one says
            self.say(f"{name} is down already, away for {away_s:.0f} s more")
        else:
            self.say(f"kill -9 {name}, away for {away_s:.0f} s")
            kill_service(self.stack, name)
        self.wait(away_s)
        with self._lock:
            self._away[name] -= 1
        self._bring_up(name)

    def revive(self, name: str) -> None:
        """Start a service again that has ended by itself, or is about to; one that lives on is left alone."""
        deadline = time.monotonic() + SELF_END_S
        while (pid := pid_of(self.stack, name)) is not None and time.monotonic() < deadline:
            self.wait(0.5)
        self.say(f"{name} is down" if pid is None else f"{name} lives on")
        self._bring_up(name)

    def _bring_up(self, name: str) -> None:
        deadline = time.monotonic() + UP_S
        while True:
            while any(self._away[needed] for needed in {name} | NEEDS.get(name, set())):
                self.wait(0.2)
            try:
                self.stack.up([name])
                break
            except StackError as error:
                # Another fault may have taken what it needs away while it started.
                self.say(f"{name} could not be started: {str(error).splitlines()[0]}")
                if time.monotonic() > deadline:
                    raise
            self.wait(UP_AGAIN_S)
        self.say(f"{name} is up again")

    def outputs(self) -> int:
        """How many telemetry records there are."""
        return end_of(self.settings, self.settings.topics.telemetry)

    def close(self) -> None:
        """No more restarts, and nothing stays stopped."""
        self._over.set()
        self._supervisor.join()
        for process in self.members.values():
            process.send_signal(signal.SIGCONT)

    def end(self) -> bool:
        """SIGTERM to everything; whether all of it ended well, with what was applied made durable."""
        self.close()
        for process in self.members.values():
            process.send_signal(signal.SIGTERM)
        well = True
        for name, process in self.members.items():
            try:
                code = process.wait(END_S)
            except subprocess.TimeoutExpired:
                self.say(f"{name} did not end within {END_S:.0f} s of SIGTERM; kill -9")
                self.system.kill(process)
                code = -signal.SIGKILL
            if code:
                well = False
                self.say(f"{name} ended with {code}")
        return well

    def drain(self) -> None:
        """End everything with what is left applied and stored."""
        self.end()
        for command in ("worker", "sink"):
            last = self.system.start(command, "--until-idle", IDLE_S)
            assert last.wait(DRAIN_S) == 0, self.system.log_of(last)[-4000:]
        self.say("drained")
