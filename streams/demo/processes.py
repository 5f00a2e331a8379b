"""The worker and the sink as child processes that cannot outlive the demo by accident."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import psutil

from routekeel.streams.errors import RoutekeelError

STOP_TIMEOUT_S = 25.0
PR_SET_PDEATHSIG = 1


class Child:
    """One `routekeel` command in the background, its log in a file of its own."""

    def __init__(
        self, name: str, state_dir: Path, settings: Mapping[str, str], *, outlive: bool
    ) -> None:
        self.name = name
        self.log = state_dir / "log" / f"{name}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "routekeel.streams.cli.main", name]
        for key, value in settings.items():
            command += ["--set", f"{key}={value}"]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=None if outlive else _die_with_parent,
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def check(self) -> None:
        """Raise RoutekeelError with the end of its log when it has ended."""
        code = self._process.poll()
        if code is not None:
            tail = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-6:]
            raise RoutekeelError(
                f"the {self.name} ended with code {code}:\n  " + "\n  ".join(tail),
                f"see {self.log}",
            )

    def stop(self) -> None:
        """SIGTERM, wait, SIGKILL; returns when it is gone."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def _die_with_parent() -> None:
    """In the child, on Linux: SIGTERM when the parent dies, kill -9 included."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def stop_recorded(state_dir: Path) -> list[str]:
    """Stop the workers and sinks that run on this state folder (`down` uses it); their names."""
    stopped: list[str] = []
    waiting: list[psutil.Process] = []
    for path in sorted((state_dir / "run").glob("*-*.json")):
        try:
            pid = int(json.loads(path.read_text(encoding="utf-8"))["pid"])
            process = psutil.Process(pid)
            ours = process.create_time() <= path.stat().st_mtime + 1 and any(
                "routekeel" in part for part in process.cmdline()
            )
        except (OSError, ValueError, KeyError, psutil.Error):
            path.unlink(missing_ok=True)
            continue
        if ours and pid != os.getpid():
            process.terminate()
            waiting.append(process)
            stopped.append(path.stem)
        else:
            path.unlink(missing_ok=True)
    _, alive = psutil.wait_procs(waiting, timeout=STOP_TIMEOUT_S)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, timeout=5)
    return stopped


def wait_until_ready(child: Child, state_dir: Path, timeout_s: float) -> None:
    """Wait until the child's /health says that it has its partitions and has recovered them."""
    path = state_dir / "run" / f"{child.name}-{child.pid}.json"
    deadline = time.monotonic() + timeout_s
    while not _is_ready(path):
        child.check()
        if time.monotonic() > deadline:
            raise RoutekeelError(
                f"the {child.name} was not ready after {timeout_s:.0f} s", f"see {child.log}"
            )
        time.sleep(0.1)


def _is_ready(runtime_file: Path) -> bool:
    try:
        url = json.loads(runtime_file.read_text(encoding="utf-8"))["url"]
        with urllib.request.urlopen(f"{url}/health", timeout=2) as reply:
            return bool(json.load(reply)["ready"])
    except (OSError, ValueError, KeyError):
        return False
