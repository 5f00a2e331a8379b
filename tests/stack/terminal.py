"""A command with a terminal as its stderr, as a person sees it."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import threading
from pathlib import Path

from tests.stack.system import WAIT_S, System

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\]8;[^\x1b]*\x1b\\")


def on_terminal(running: System, command: str, *arguments: str) -> tuple[int, str, str]:
    """Run `routekeel COMMAND` to its end: exit code, stdout, and what the terminal got, without colours."""
    leader, follower = pty.openpty()
    pieces: list[bytes] = []

    def drain() -> None:
        while True:
            try:
                piece = os.read(leader, 65_536)
            except OSError:  # the last process that had it open is gone
                return
            if not piece:
                return
            pieces.append(piece)

    environment = {k: v for k, v in os.environ.items() if not k.startswith("ROUTEKEEL_")}
    process = subprocess.Popen(
        running.line(command, *arguments),
        stdout=subprocess.PIPE,
        stderr=follower,
        env=environment | {"TERM": "xterm-256color", "COLUMNS": "160"},
    )
    running.watch(process, Path(os.devnull))
    os.close(follower)
    reader = threading.Thread(target=drain)
    reader.start()
    out, _ = process.communicate(timeout=WAIT_S)
    reader.join(10)
    os.close(leader)
    seen = b"".join(pieces).decode(errors="replace")
    return process.returncode, out.decode(), CONTROL.sub("", seen)
