"""Clocks that can be set, one for each process: the time of day that it sees steps, the machine's own stays.

A small library that is loaded before the C library adds an offset to CLOCK_REALTIME and to nothing else
(set_clock.c). What keeps a clock of its own below the C library, as the ClickHouse engine does, is not
reached. It is compiled here; where there is no compiler, or it does not take, `ClocksMissing` says why.

libfaketime does more than this, and for processes that are killed too much: it leaves a semaphore and
shared memory behind for each, reads its file again once a second at most, and the build that pip installs
keeps what it has read unguarded between threads.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
from pathlib import Path

SOURCE = Path(__file__).with_name("set_clock.c")
SECOND_NS = 1_000_000_000
TRIED_S = 7_200
TAKES_S = 60.0


class ClocksMissing(Exception):
    """Clocks cannot be set here; the reason is the message."""


class Clocks:
    """The clocks of the processes under `folder`, by name. Raises ClocksMissing."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._library = folder / "set_clock.so"
        compiler = os.environ.get("CC", "cc")
        line = [compiler, "-O2", "-shared", "-fPIC", "-o", str(self._library), str(SOURCE), "-ldl"]
        try:
            done = subprocess.run(line, capture_output=True, text=True, check=False)
        except OSError as error:
            raise ClocksMissing(f"there is no C compiler: {error}") from error
        if done.returncode != 0:
            raise ClocksMissing(f"{compiler} failed: {done.stderr.strip()[-300:]}")
        self._try()

    def set(self, name: str, offset_s: float) -> None:
        """Set a clock so far from the machine's, whether or not a process has it already."""
        path = self._file(name)
        with path.open("r+b") as file:
            file.write(_packed(offset_s))

    def environment(self, name: str) -> dict[str, str]:
        """What a process is started with so that it has this clock."""
        return {"LD_PRELOAD": str(self._library), "SET_CLOCK_FILE": str(self._file(name))}

    def _file(self, name: str) -> Path:
        path = self._folder / f"{name}.clock"
        if not path.exists():
            path.write_bytes(_packed(0))
        return path

    def _try(self) -> None:
        self.set("try", TRIED_S)
        line = [sys.executable, "-c", "import time; print(time.time())"]
        environment = os.environ | self.environment("try")
        try:
            done = subprocess.run(
                line, env=environment, capture_output=True, text=True, check=True, timeout=TAKES_S
            )
            seen_s = float(done.stdout) - time.time()
        except (subprocess.SubprocessError, ValueError) as error:
            raise ClocksMissing(f"a process with a clock of its own failed: {error}") from None
        if abs(seen_s - TRIED_S) > TAKES_S:
            raise ClocksMissing(f"a clock that was set {TRIED_S:+d} s went {seen_s:+.0f} s")


def _packed(offset_s: float) -> bytes:
    return struct.pack("=q", round(offset_s * SECOND_NS))
