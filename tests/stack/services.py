"""The stack's services as processes: which they are, and kill -9."""

from __future__ import annotations

from contextlib import suppress

import psutil

from routekeel.infra.local.stack import LocalStack

KILLED_S = 10.0


def pid_of(stack: LocalStack, name: str) -> int | None:
    """The service's process; None where it is down."""
    (service,) = [service for service in stack.status() if service.name == name]
    return service.pid


def kill_service(stack: LocalStack, name: str) -> None:
    """kill -9, and wait until it has ended; nothing where it is down, or ends by itself just now."""
    pid = pid_of(stack, name)
    if pid is not None:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            process.kill()
            process.wait(KILLED_S)
