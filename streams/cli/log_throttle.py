"""Keeps what libraries log about a broker that is away readable: a few lines instead of thousands.

With nobody to connect to aiokafka logs some 5,000 lines a minute, all of four kinds. The person on
call needs the first of each, and how many there were.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

INTERVAL_S = 10.0
KINDS_MAX = 256


class LogThrottle(logging.Filter):
    """A handler's filter: of other people's loggers one line of a kind in INTERVAL_S, and a count of the rest.

    A kind is a logger, a level and a text before its values are put in. Lines of our own all pass.

    >>> throttle, now = LogThrottle(own="routekeel", clock_s=lambda: now[0]), [0.0]
    >>> line = logging.LogRecord("aiokafka", logging.ERROR, "", 0, "no answer from %s", ("broker-1",), None)
    >>> [throttle.filter(line) for _ in range(3)]
    [True, False, False]
    >>> now[0] = 10.0
    >>> throttle.filter(line) and line.getMessage()
    'no answer from broker-1 (2 more of these were held back)'
    """

    def __init__(self, own: str, clock_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._own = own
        self._clock_s = clock_s
        # By kind: when one was let through, and how many were not since.
        self._said: dict[tuple[str, int, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is shown; it then says how many before it were not."""
        if record.name.partition(".")[0] == self._own:
            return True
        kind, now = (record.name, record.levelno, str(record.msg)), self._clock_s()
        said_at, held_back = self._said.get(kind, (-INTERVAL_S, 0))
        if now - said_at < INTERVAL_S:
            self._said[kind] = (said_at, held_back + 1)
            return False
        if len(self._said) >= KINDS_MAX:
            self._said.clear()
        self._said[kind] = (now, 0)
        if held_back:
            record.msg = f"{record.getMessage()} ({held_back:,} more of these were held back)"
            record.args = ()
        return True
