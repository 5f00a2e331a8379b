"""What the process's end and a fork mean for open producers.

At exit every open producer is flushed, within one bound for all. After a fork the child's copies
start empty: what the parent had queued is the parent's to send.
"""

from __future__ import annotations

import atexit
import itertools
import os
import time
from collections.abc import Callable

EXIT_TIMEOUT_S = 2.0
_ids = itertools.count()
_open: dict[int, tuple[Callable[[float], object], Callable[[], None]]] = {}


def watch(close: Callable[[float], object], after_fork: Callable[[], None]) -> int:
    """Call `close(seconds)` at exit and `after_fork()` in a forked child; a handle to end that."""
    handle = next(_ids)
    _open[handle] = (close, after_fork)
    return handle


def forget(handle: int) -> None:
    """The producer is closed: there is nothing left to do for it."""
    _open.pop(handle, None)


def close_all() -> None:
    """Close every open producer, all of them within EXIT_TIMEOUT_S."""
    deadline = time.monotonic() + EXIT_TIMEOUT_S
    for close, _ in list(_open.values()):
        close(max(0.0, deadline - time.monotonic()))


def _in_child() -> None:
    for _, after_fork in list(_open.values()):
        after_fork()


atexit.register(close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
