"""Starts, recognises and ends the stack's processes.

Every process gets its own session, so that a Ctrl-C in the terminal does not reach it, and a
record on disk with its start time, so that a recycled pid is never mistaken for it.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from routekeel.infra.local.files import rotate, write_atomically

# The system derives start times from the boot time, which shifts when the clock is set.
START_TOLERANCE_S = 5.0
KILL_WAIT_S = 10.0

# Kept so that an ended child is reaped and not left as a zombie of this process.
_children: dict[int, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True)
class ProcessRecord:
    """What is remembered about a started process. `mark` is a text in its command line."""

    name: str
    pid: int
    started: float
    port: int
    mark: str

    def save(self, path: Path) -> None:
        """Store the record whole."""
        write_atomically(path, json.dumps(asdict(self)) + "\n")

    @staticmethod
    def load(path: Path) -> ProcessRecord | None:
        """The stored record; None when there is none or it is damaged."""
        try:
            return ProcessRecord(**json.loads(path.read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None


def spawn(
    name: str,
    argv: Sequence[str],
    *,
    port: int,
    mark: str,
    console: Path,
    cwd: Path,
    env: Mapping[str, str],
    record_path: Path,
) -> ProcessRecord:
    """Start a process in its own session and record it at once.

    Its standard output and error go to `console`; where the record cannot be written, the
    process is ended again, since nobody would find it later.
    """
    rotate(console)
    with console.open("ab") as output:
        child = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=dict(env),
            start_new_session=True,
        )
    _children[child.pid] = child
    record = ProcessRecord(name, child.pid, _start_time(child.pid), port, mark)
    try:
        record.save(record_path)
    except BaseException:
        child.kill()
        child.wait(KILL_WAIT_S)
        _reap(child.pid)
        raise
    return record


def _start_time(pid: int) -> float:
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return time.time()  # gone already: the caller's health check will see it


def _reap(pid: int) -> None:
    child = _children.get(pid)
    if child is not None and child.poll() is not None:
        del _children[pid]


def find(record: ProcessRecord) -> psutil.Process | None:
    """The recorded process if it still runs; None when it ended or the pid is another's."""
    process = _find(record)
    if process is None:
        _reap(record.pid)
    return process


def _find(record: ProcessRecord) -> psutil.Process | None:
    try:
        process = psutil.Process(record.pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        if abs(process.create_time() - record.started) > START_TOLERANCE_S:
            return None
        # Empty while it is ending: it has given its memory back and is not a zombie yet.
        command = process.cmdline()
        if command and not any(record.mark in part for part in command):
            return None
    except psutil.Error:
        return None
    return process


def stop(record: ProcessRecord, timeout_s: float) -> bool:
    """End the recorded process: SIGTERM, wait, SIGKILL. False when it was not running."""
    process = find(record)
    if process is None:
        return False
    try:
        process.terminate()
        try:
            process.wait(timeout_s)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(KILL_WAIT_S)
    except psutil.NoSuchProcess:
        pass
    except psutil.TimeoutExpired:
        return True  # a process in an uninterruptible wait: status will still show it
    finally:
        _reap(record.pid)
    return True
