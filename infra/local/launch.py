"""One start of the stack: what is down comes up side by side, and all of it goes if one fails.

Also when the person at the terminal gives up: nothing half-started stays behind.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress

from routekeel.infra.local.contract import LOOPBACK, OnEvent, StackConfig
from routekeel.infra.local.errors import StackError
from routekeel.infra.local.files import from_os_error, tail
from routekeel.infra.local.layout import Layout
from routekeel.infra.local.ports import PortBook, is_free
from routekeel.infra.local.processes import ProcessRecord, find, stop
from routekeel.infra.local.services import Service

POLL_S = 0.1
HEALTH_TIMEOUT_S = 5.0
HUNG_WAIT_S = 15.0  # for a running process that does not answer, before it is started anew
PORT_WAIT_S = 3.0
PORT_TRIES = 3


class _GivenUpError(Exception):
    """This launch was cancelled."""


class _ObserverError(Exception):
    """Whoever is told about the events failed; the cause is theirs."""


class _PortTakenError(Exception):
    """Somebody else took the port between the choice and the start."""


class Launch:
    """Brings services up in threads. Used once."""

    def __init__(
        self, config: StackConfig, layout: Layout, services: dict[str, Service], on_event: OnEvent
    ) -> None:
        self._config = config
        self._layout = layout
        self._services = services
        self._on_event = on_event
        self._events = threading.Lock()
        self._cancelled = threading.Event()
        self._started: list[ProcessRecord] = []
        self._ports = PortBook(layout.ports)
        self._choosing = threading.Lock()

    def run(self, names: Sequence[str]) -> PortBook:
        """Bring these up and what they need. Raises StackError; undoes itself on any failure."""
        chains = _chains(self._services, names)
        for name, service in self._services.items():
            if self._ports.get(name) is None:  # every endpoint has an address, up or not
                self._ports.choose(name, service.wanted_port)
        with ThreadPoolExecutor(len(chains), thread_name_prefix="up") as pool:
            futures = [pool.submit(self._bring_up_all, chain) for chain in chains]
            try:
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
            except BaseException as error:
                self._cancelled.set()
                with _uninterrupted():
                    with suppress(_ObserverError):
                        self._tell("stack", "stopping", "undoing this start")
                    wait(futures)
                    self._undo()
                if isinstance(error, _ObserverError) and error.__cause__ is not None:
                    raise error.__cause__ from None
                raise
        return self._ports

    def _bring_up_all(self, chain: Sequence[str]) -> None:
        try:
            moved = False
            for name in chain:
                before = self._ports.get(name)
                self._bring_up(self._services[name], anew=moved)
                moved = moved or self._ports.get(name) != before
        except OSError as error:
            raise from_os_error(error, self._layout.state) from error

    def _bring_up(self, service: Service, anew: bool) -> None:
        """Make it run; `anew` ends one that runs, since what it needs has moved to another port."""
        if anew and (record := self._layout.record(service.name)) is not None:
            self._say(service, "stopping", "what it needs has another address now")
            stop(record, self._config.stop_timeout_s)
        if self._already_up(service):
            return
        for _ in range(PORT_TRIES):
            try:
                self._start(service)
                return
            except _PortTakenError:
                self._say(service, "prepare", "another process took the port; choosing again")
        raise StackError(
            f"{service.name} found no port that stayed free.", "Name a free port and start again."
        )

    def _already_up(self, service: Service) -> bool:
        record = self._layout.record(service.name)
        process = find(record) if record else None
        if record is None or process is None:
            return False
        deadline = time.monotonic() + HUNG_WAIT_S
        while not service.is_healthy(record.port, HEALTH_TIMEOUT_S):
            if time.monotonic() > deadline:
                self._say(service, "stopping", "it runs but does not answer: starting it anew")
                stop(record, self._config.stop_timeout_s)
                return False
            if find(record) is None:
                return False
            self._pause()
        self._say(service, "running", f"{LOOPBACK}:{record.port}")
        return True

    def _start(self, service: Service) -> None:
        self._await_own_port(service)
        with self._choosing:
            port = self._ports.choose(service.name, service.wanted_port)
        if port != service.wanted_port:
            wanted = service.wanted_port
            reason = "is taken" if not is_free(wanted) else "was taken before"
            self._say(service, "prepare", f"port {wanted} {reason}; using {port}")
        self._say(service, "start", f"{LOOPBACK}:{port}")
        began = time.monotonic()
        record = service.start(port, self._ports, lambda text: self._step(service, text))
        self._started.append(record)
        self._await_health(service, record)
        self._say(service, "healthy", f"after {time.monotonic() - began:.1f} s")

    def _await_own_port(self, service: Service) -> None:
        """Wait a little for the port it had: a process that was killed may not have let go of it yet.

        Others know that address; moving at once would cut them off for good.
        """
        own = self._ports.get(service.name)
        deadline = time.monotonic() + PORT_WAIT_S
        while own is not None and not is_free(own) and time.monotonic() < deadline:
            self._pause()

    def _await_health(self, service: Service, record: ProcessRecord) -> None:
        deadline = time.monotonic() + self._config.start_timeout_s
        while not service.is_healthy(record.port, HEALTH_TIMEOUT_S):
            if find(record) is None:
                if not is_free(record.port):
                    raise _PortTakenError
                raise self._failure(service, "ended while starting")
            if time.monotonic() > deadline:
                limit = self._config.start_timeout_s
                raise self._failure(service, f"did not answer within {limit:.0f} s")
            self._pause()
        # Whatever answers must be ours: a process that lost the port race has ended by now.
        if find(record) is None:
            raise _PortTakenError

    def _step(self, service: Service, text: str) -> None:
        """Tell of a step of the preparation, which is not taken any more after giving up."""
        if self._cancelled.is_set():
            raise _GivenUpError
        self._say(service, "prepare", text)

    def _pause(self) -> None:
        if self._cancelled.wait(POLL_S):
            raise _GivenUpError

    def _failure(self, service: Service, what: str) -> StackError:
        logs = [self._layout.console(service.name), self._layout.log(service.name)]
        said = tail(logs)
        self._say(service, "failed", what)
        return StackError(
            f"{service.name} {what}." + (f" Its last words:\n{said}" if said else ""),
            f"See {logs[1]} for more.",
        )

    def _undo(self) -> None:
        """End what this launch started, the latest first."""
        for record in reversed(self._started):
            with suppress(_ObserverError):
                self._tell(record.name, "stopping", f"pid {record.pid}")
            stop(record, self._config.stop_timeout_s)
            self._layout.record_path(record.name).unlink(missing_ok=True)
            with suppress(_ObserverError):
                self._tell(record.name, "stopped", "")

    def _say(self, service: Service, phase: str, detail: str) -> None:
        self._tell(service.name, phase, detail)

    def _tell(self, name: str, phase: str, detail: str) -> None:
        with self._events:
            try:
                self._on_event(name, phase, detail)
            except Exception as error:
                raise _ObserverError from error


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """A second Ctrl-C must not cut the undoing short; only the main thread can see to that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _chains(services: dict[str, Service], names: Sequence[str]) -> list[list[str]]:
    """The wanted services with what they need, as chains that may run side by side.

    A service joins the chain of what it needs, behind it.
    """
    unknown = [name for name in names if name not in services]
    if unknown:
        raise StackError(
            f"There is no service {', '.join(unknown)}.", f"There are {', '.join(services)}."
        )
    wanted = set(names)
    for name in names:
        wanted.update(services[name].needs)
    chains: list[list[str]] = []
    for name in services:  # ordered: each after what it needs
        if name not in wanted:
            continue
        home = next((c for c in chains if set(services[name].needs) & set(c)), None)
        if home is None:
            chains.append([name])
        else:
            home.append(name)
    return chains
