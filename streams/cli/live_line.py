"""One line at the foot of a terminal that says how a long-running command goes.

The rate is measured over the last few seconds, so that it shows a stop. Where there is no terminal,
or somebody wants JSON, nothing is written at all.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

WINDOW_S = 3.0
REDRAW_S = 0.25


class LiveLine:
    """Redrawn in place by `show`; gone when left. Drawn by the caller's thread, at most 4 times a second.

    `counted` names what the rate is about: records, rows.
    """

    def __init__(
        self,
        console: Console,
        counted: str,
        *,
        shown: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._counted = counted
        self._clock = clock
        self._live = (
            Live(console=console, auto_refresh=False, transient=True)
            if shown and console.is_terminal
            else None
        )
        self._counts: deque[tuple[float, int]] = deque([(clock(), 0)])
        self._drawn_at = float("-inf")

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, count: int, more: Mapping[str, int]) -> None:
        """Show the running count's rate, and the other numbers as they are."""
        now = self._clock()
        if self._live is None or now - self._drawn_at < REDRAW_S:
            return
        self._drawn_at = now
        line = Text(f"{self._rate(now, count):,.0f} {self._counted}/s", style="bold")
        for name, value in more.items():
            line.append(f" · {name} {value:,}", style="not bold")
        self._live.update(line, refresh=True)

    def _rate(self, now: float, count: int) -> float:
        counts = self._counts
        counts.append((now, count))
        while len(counts) > 2 and now - counts[1][0] >= WINDOW_S:
            counts.popleft()
        since, before = counts[0]
        return (count - before) / (now - since) if now > since else 0.0
