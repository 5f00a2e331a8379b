"""When something happened, by the wall's clock and by the CPU time used until then."""

from __future__ import annotations

import time
from typing import NamedTuple


class Moment(NamedTuple):
    """A point in time and the CPU time the process had used by then, in seconds."""

    at_s: float
    cpu_s: float

    @classmethod
    def now(cls) -> Moment:
        """This moment."""
        return cls(time.monotonic(), time.process_time())
