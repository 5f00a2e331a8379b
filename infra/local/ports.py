"""Chooses loopback ports: the remembered one, else the wanted one, else any free one.

The choice is kept in the state directory, so that clients' settings survive a restart.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path

from routekeel.infra.local.contract import LOOPBACK
from routekeel.infra.local.files import write_atomically

CONNECT_TIMEOUT_S = 0.5


def answers(port: int, host: str = LOOPBACK) -> bool:
    """Whether something accepts connections on the port."""
    try:
        with socket.create_connection((host, port), timeout=CONNECT_TIMEOUT_S):
            return True
    except OSError:
        return False


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Whether a server could listen on the port now.

    SO_REUSEADDR lets connections of an ended server that are still in TIME_WAIT not count;
    asking for an answer catches a listener on all addresses where the bind would pass.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return not answers(port, host)


def any_free(host: str = LOOPBACK) -> int:
    """A port that the system says is free."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


class PortBook:
    """The ports of one stack by name, kept in a file. A damaged file counts as empty."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._chosen: dict[str, tuple[int | None, int]] = self._read()

    def _read(self) -> dict[str, tuple[int | None, int]]:
        try:
            stored = json.loads(self._path.read_text("utf-8"))
            return {str(name): (row["wanted"], int(row["port"])) for name, row in stored.items()}
        except (OSError, ValueError, AttributeError, TypeError, KeyError):
            return {}

    def get(self, name: str) -> int | None:
        """The port last chosen under this name, or None."""
        return self._chosen[name][1] if name in self._chosen else None

    def choose(self, name: str, wanted: int | None) -> int:
        """A port that is free now and not another name's; the choice is stored.

        A stack that once had to move stays where its clients know it, until another port is
        wanted of it or that one is taken too.
        """
        others = {port for other, (_, port) in self._chosen.items() if other != name}
        before, remembered = self._chosen.get(name, (wanted, None))
        order = (remembered, wanted) if before == wanted else (wanted, remembered)
        for port in order:
            if port and port not in others and is_free(port):
                return self._store(name, wanted, port)
        port = any_free()
        while port in others:
            port = any_free()
        return self._store(name, wanted, port)

    def _store(self, name: str, wanted: int | None, port: int) -> int:
        if self._chosen.get(name) != (wanted, port):
            self._chosen[name] = (wanted, port)
            rows = {key: {"wanted": w, "port": p} for key, (w, p) in self._chosen.items()}
            write_atomically(self._path, json.dumps(rows, indent=2) + "\n")
        return port
