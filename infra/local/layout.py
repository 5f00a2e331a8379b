"""Where the stack keeps what: every path under one state directory, all of them absolute.

Absolute, so that any working directory will do, for the stack and for its processes.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from routekeel.infra.local.files import from_os_error, password_in, prepare_folder
from routekeel.infra.local.processes import ProcessRecord

PASSWORD_NAME = "clickhouse_password"
FOLDERS = ("kafka", "clickhouse", "registry", "log", "run", "secrets")
FILES = ("ports.json", "stack.json", "lock")


@dataclass(frozen=True)
class Layout:
    """The paths of one stack."""

    state: Path

    @staticmethod
    def of(state_dir: Path) -> Layout:
        """The layout of a state directory, given relative to the working directory or not."""
        return Layout(state_dir.expanduser().resolve())

    @property
    def ports(self) -> Path:
        """The chosen ports."""
        return self.state / "ports.json"

    @property
    def stack(self) -> Path:
        """The endpoints, without the password."""
        return self.state / "stack.json"

    @property
    def password(self) -> Path:
        """The ClickHouse password."""
        return self.state / "secrets" / PASSWORD_NAME

    def log(self, service: str) -> Path:
        """A service's own log."""
        return self.state / "log" / f"{service}.log"

    def console(self, service: str) -> Path:
        """What a service wrote to its standard output and error."""
        return self.state / "log" / f"{service}.console.log"

    def record_path(self, service: str) -> Path:
        """Where a service's process is recorded."""
        return self.state / "run" / f"{service}.json"

    def record(self, service: str) -> ProcessRecord | None:
        """The process last started for the service."""
        return ProcessRecord.load(self.record_path(service))

    def prepare(self) -> None:
        """Make all folders and the password. Raises StackError."""
        prepare_folder(self.state)
        try:
            for name in FOLDERS:
                (self.state / name).mkdir(exist_ok=True)
            password_in(self.password.parent, self.password.name)
        except OSError as error:
            raise from_os_error(error, self.state) from error

    def remove(self) -> None:
        """Remove what the stack made, and the directory if nothing else is in it."""
        try:
            for name in FOLDERS:
                shutil.rmtree(self.state / name, ignore_errors=True)
            for name in FILES:
                (self.state / name).unlink(missing_ok=True)
            if self.state.exists() and not any(self.state.iterdir()):
                self.state.rmdir()
        except OSError as error:
            raise from_os_error(error, self.state) from error

    @contextmanager
    def locked(self, waiting: Callable[[], None]) -> Iterator[None]:
        """Hold the stack's lock; the system frees it when this process ends, however it ends.

        `waiting` is called once if another process holds it.
        """
        try:
            descriptor = os.open(self.state / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise from_os_error(error, self.state) from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
