"""The local stack's face: up, down, status, endpoints, wipe.

Everything it knows lies in the state directory, so that any process may ask or act; a lock there
keeps two from starting or stopping at once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import psutil

from routekeel.infra.local.contract import (
    LOOPBACK,
    SERVICES,
    Endpoints,
    Health,
    OnEvent,
    ServiceStatus,
    StackConfig,
)
from routekeel.infra.local.errors import StackError
from routekeel.infra.local.files import from_os_error, write_atomically
from routekeel.infra.local.launch import Launch
from routekeel.infra.local.layout import Layout
from routekeel.infra.local.ports import PortBook
from routekeel.infra.local.processes import find, stop
from routekeel.infra.local.services import Service, services_of

__all__ = [
    "SERVICES",
    "Endpoints",
    "Health",
    "LocalStack",
    "OnEvent",
    "ServiceStatus",
    "StackConfig",
    "StackError",
    "ignore_event",
]

STATUS_TIMEOUT_S = 2.0
PASSWORD_FIELD = "clickhouse_password"


def ignore_event(service: str, phase: str, detail: str) -> None:
    """The default observer: says nothing."""


class LocalStack:
    """One stack in one state directory. Every method may be called from any process."""

    def __init__(self, config: StackConfig | None = None) -> None:
        self.config = config or StackConfig()
        self._layout = Layout.of(self.config.state_dir)
        self._services: dict[str, Service] = services_of(self.config, self._layout)

    def up(self, services: Sequence[str] = SERVICES, on_event: OnEvent = ignore_event) -> Endpoints:
        """Start what is down, with what it needs, and wait until all of it is healthy.

        Raises:
            StackError: Something could not be started; what this call started is stopped again.
            KeyboardInterrupt: Likewise.
        """
        self._layout.prepare()
        with self._layout.locked(lambda: on_event("stack", "prepare", "waiting for another start")):
            launch = Launch(self.config, self._layout, self._services, on_event)
            ports = launch.run(services)
            endpoints = self._endpoints_at(ports)
            stored = asdict(endpoints)
            del stored[PASSWORD_FIELD]
            try:
                write_atomically(self._layout.stack, json.dumps(stored, indent=2) + "\n")
            except OSError as error:
                raise from_os_error(error, self._layout.state) from error
            return endpoints

    def down(self, on_event: OnEvent = ignore_event) -> list[ServiceStatus]:
        """Stop the recorded processes, those that need others first, and wait for their end.

        Data stay. A recorded pid that now belongs to another process is left alone.
        """
        if not self._layout.state.is_dir():
            return self.status()
        with self._layout.locked(lambda: on_event("stack", "stopping", "waiting for a start")):
            self._layout.stack.unlink(missing_ok=True)
            for name in reversed(self._services):
                record = self._layout.record(name)
                if record is None:
                    continue
                if find(record) is not None:
                    on_event(name, "stopping", f"pid {record.pid}")
                    began = time.monotonic()
                    stop(record, self.config.stop_timeout_s)
                    on_event(name, "stopped", f"after {time.monotonic() - began:.1f} s")
                self._layout.record_path(name).unlink(missing_ok=True)
        return self.status()

    def status(self) -> list[ServiceStatus]:
        """Every service as it is now, in the order of SERVICES. Starts and changes nothing."""
        with ThreadPoolExecutor(len(self._services)) as pool:
            return list(pool.map(self._status_of, self._services.values()))

    def endpoints(self) -> Endpoints | None:
        """The running stack's endpoints; None when it is not up or one of its processes ended."""
        try:
            stored = json.loads(self._layout.stack.read_text("utf-8"))
            stored[PASSWORD_FIELD] = self._layout.password.read_text("utf-8").strip()
            endpoints = Endpoints(**stored)
        except (OSError, ValueError, TypeError):
            return None
        records = [self._layout.record(name) for name in self._services]
        present = [record for record in records if record is not None]
        if not present or any(find(record) is None for record in present):
            return None
        return endpoints

    def wipe(self) -> None:
        """Stop everything and remove the stack's data, logs and password."""
        self.down()
        self._layout.remove()

    def _status_of(self, service: Service) -> ServiceStatus:
        name = service.name
        log = self._layout.log(name)
        record = self._layout.record(name)
        if record is None:
            port = PortBook(self._layout.ports).get(name)
            return ServiceStatus(name, None, LOOPBACK, port, "stopped", None, None, log)
        process = find(record)
        if process is None:
            detail = "ended unexpectedly; see its log"
            return ServiceStatus(
                name, None, LOOPBACK, record.port, "stopped", None, None, log, detail
            )
        age_s = time.time() - record.started
        health: Health = "healthy"
        detail = ""
        if not service.is_healthy(record.port, STATUS_TIMEOUT_S):
            young = age_s < self.config.start_timeout_s
            health = "starting" if young else "unhealthy"
            detail = f"no answer within {STATUS_TIMEOUT_S:.0f} s"
        try:
            rss_mb = process.memory_info().rss / 2**20
        except psutil.Error:
            rss_mb = None
        return ServiceStatus(
            name, record.pid, LOOPBACK, record.port, health, age_s, rss_mb, log, detail
        )

    def _endpoints_at(self, ports: PortBook) -> Endpoints:
        def port(name: str) -> int:
            return ports.get(name) or self._services[name].wanted_port

        return Endpoints(
            kafka_bootstrap=f"{LOOPBACK}:{port('kafka')}",
            registry_url=f"http://{LOOPBACK}:{port('registry')}",
            clickhouse_host=LOOPBACK,
            clickhouse_port=port("clickhouse"),
            clickhouse_username=self.config.username,
            clickhouse_password=self._layout.password.read_text("utf-8").strip(),
            clickhouse_database=self.config.database,
        )
