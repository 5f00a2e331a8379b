"""The store on cores of its own, so that what it takes is the same whoever hands it over.

On shared cores a sink is measured by what it leaves the store of the machine; in production the two
run on different ones.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from routekeel.infra.local.stack import LocalStack

STORE = "clickhouse"


def can_part() -> bool:
    """Whether this system can tie processes to cores, and there are two."""
    return hasattr(os, "sched_setaffinity") and len(os.sched_getaffinity(0)) > 1


@contextmanager
def store_apart(stack: LocalStack) -> Iterator[None]:
    """Within, the store has half of the cores, and broker, registry, this thread and its children the rest."""
    cores = sorted(os.sched_getaffinity(0))
    own, rest = set(cores[: len(cores) // 2]), set(cores[len(cores) // 2 :])
    services = {s.name: s.pid for s in stack.status() if s.pid}
    try:
        for name, pid in services.items():
            _confine(pid, own if name == STORE else rest)
        os.sched_setaffinity(0, rest)
        yield
    finally:
        os.sched_setaffinity(0, cores)
        for pid in services.values():
            _confine(pid, set(cores))


def _confine(pid: int, cores: set[int]) -> None:
    """Every thread of a process and of its children; those they start later inherit it."""
    process = psutil.Process(pid)
    for one in (process, *process.children(recursive=True)):
        for thread in Path(f"/proc/{one.pid}/task").iterdir():
            try:
                os.sched_setaffinity(int(thread.name), cores)
            except ProcessLookupError:
                continue  # it ended meanwhile
