"""The three services: how each is started and how it is asked whether it is well.

Starting means spawning only; waiting, choosing ports and undoing are the launch's.
"""

from __future__ import annotations

import http.client
import os
import sys
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import psutil

from routekeel.infra.local.contract import LOOPBACK, StackConfig
from routekeel.infra.local.kafka import KafkaNode
from routekeel.infra.local.layout import Layout
from routekeel.infra.local.ports import PortBook
from routekeel.infra.local.processes import ProcessRecord, spawn

MEMORY_SHARE = 0.5
MEMORY_MB_MIN = 1024
MEMORY_MB_MAX = 8192
CONTROLLER = "kafka_controller"
# The folder that holds the package: the checkout, through its links, or site-packages.
IMPORT_ROOT = Path(__file__).absolute().parents[3]

Say = Callable[[str], None]


class Service(Protocol):
    """One process of the stack."""

    name: str
    needs: tuple[str, ...]
    wanted_port: int

    @abstractmethod
    def start(self, port: int, ports: PortBook, say: Say) -> ProcessRecord:
        """Spawn and record the process. Raises StackError."""

    @abstractmethod
    def is_healthy(self, port: int, timeout_s: float) -> bool:
        """Whether it does its work. Never raises."""


def answers_http(port: int, path: str, timeout_s: float) -> bool:
    """Whether a GET is answered with 200. The standard client, since it follows no proxy."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


class Kafka:
    """The broker."""

    name = "kafka"
    needs: tuple[str, ...] = ()

    def __init__(self, config: StackConfig, layout: Layout) -> None:
        self.wanted_port = config.kafka_port
        self._layout = layout
        self._node = KafkaNode(config, layout.state)

    def start(self, port: int, ports: PortBook, say: Say) -> ProcessRecord:
        """Get Java and the jars, format the log folder if it is new, spawn."""
        java, jars = self._node.prepare(say)
        controller_port = ports.choose(CONTROLLER, None)
        command = self._node.command(java, jars, port, controller_port)
        return spawn(
            self.name,
            command,
            port=port,
            mark=self._node.mark,
            console=self._layout.console(self.name),
            cwd=self._node.folder,
            env=self._node.environment(),
            record_path=self._layout.record_path(self.name),
        )

    def is_healthy(self, port: int, timeout_s: float) -> bool:
        """Whether metadata are answered."""
        return self._node.is_healthy(port, timeout_s)


class PythonService:
    """A service of this package, run as a module by the same Python."""

    def __init__(
        self,
        name: str,
        layout: Layout,
        module: str,
        needs: tuple[str, ...],
        wanted_port: int,
        health_path: str,
        arguments: Callable[[PortBook], list[str]],
    ) -> None:
        self.name = name
        self.needs = needs
        self.wanted_port = wanted_port
        self._layout = layout
        self._module = module
        self._health_path = health_path
        self._arguments = arguments

    def start(self, port: int, ports: PortBook, say: Say) -> ProcessRecord:
        """Spawn it. `-P` keeps the working directory off the import path."""
        state = str(self._layout.state)
        command = [sys.executable, "-P", "-m", self._module, "--state", state, "--port", str(port)]
        return spawn(
            self.name,
            command + self._arguments(ports),
            port=port,
            mark=state,
            console=self._layout.console(self.name),
            cwd=self._layout.state / self.name,
            env=_environment(),
            record_path=self._layout.record_path(self.name),
        )

    def is_healthy(self, port: int, timeout_s: float) -> bool:
        """Whether its health path is answered."""
        return answers_http(port, self._health_path, timeout_s)


def _environment() -> dict[str, str]:
    """This process's environment; the package is importable wherever it was imported from."""
    paths = [os.environ.get("PYTHONPATH", ""), str(IMPORT_ROOT)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def memory_mb(config: StackConfig) -> int:
    """What the ClickHouse engine may use: half of the machine's, within bounds."""
    if config.clickhouse_memory_mb is not None:
        return config.clickhouse_memory_mb
    share = int(psutil.virtual_memory().total / 2**20 * MEMORY_SHARE)
    return min(max(share, MEMORY_MB_MIN), MEMORY_MB_MAX)


def services_of(config: StackConfig, layout: Layout) -> dict[str, Service]:
    """The stack's services by name, each after what it needs."""

    def for_registry(ports: PortBook) -> list[str]:
        return ["--bootstrap", f"{LOOPBACK}:{ports.get('kafka') or config.kafka_port}"]

    def for_gateway(_: PortBook) -> list[str]:
        arguments = ["--username", config.username, "--database", config.database]
        arguments += ["--password-file", str(layout.password)]
        return [*arguments, "--memory-mb", str(memory_mb(config))]

    package = "routekeel.infra.local"
    made: list[Service] = [
        Kafka(config, layout),
        PythonService(
            "registry",
            layout,
            f"{package}.registry",
            ("kafka",),
            config.registry_port,
            "/",
            for_registry,
        ),
        PythonService(
            "clickhouse",
            layout,
            f"{package}.gateway",
            (),
            config.clickhouse_port,
            "/ping",
            for_gateway,
        ),
    ]
    return {service.name: service for service in made}
