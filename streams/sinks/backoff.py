"""How long to wait before the next try: doubling, bounded, with jitter from a passed-in source.

Jitter keeps several sinks from coming back to a recovering server in step.
"""

from __future__ import annotations

import random
from typing import Final

INITIAL_S: Final = 0.2
LARGEST_S: Final = 10.0


class Backoff:
    """Delays for one row of failures; `reset` after a success.

    >>> delays = Backoff(random.Random(1))
    >>> [0.1 <= delays.next_s() <= 0.2, 0.2 <= delays.next_s() <= 0.4]
    [True, True]
    """

    def __init__(
        self, source: random.Random, initial_s: float = INITIAL_S, largest_s: float = LARGEST_S
    ) -> None:
        self._source = source
        self._initial_s = initial_s
        self._largest_s = largest_s
        self._failures = 0

    def next_s(self) -> float:
        """The delay before the next try, between a half and the whole of the doubled one."""
        ceiling = min(self._largest_s, self._initial_s * 2.0 ** min(self._failures, 32))
        self._failures += 1
        return ceiling * (0.5 + 0.5 * self._source.random())

    def reset(self) -> None:
        """The next delay is the first one again."""
        self._failures = 0
