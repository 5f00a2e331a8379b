"""The live view: the newest routes per session and layer, read back from the telemetry topic."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from rich.console import Group
from rich.table import Table
from rich.text import Text

from routekeel.schemas.views import TelemetryView
from routekeel.streams.produce.from_settings import sdk_config
from routekeel.streams.sdk.read import read_telemetry
from routekeel.streams.sdk.reader import TopicReader
from routekeel.streams.settings import Settings

SESSIONS_SHOWN = 5
BARS = "▁▂▃▄▅▆▇█"


@dataclass(slots=True)
class LayerTotals:
    """What a session's layer has added up to so far."""

    tokens: int = 0
    flips_base: int = 0
    flips: int = 0
    entropy: float = 0.0
    g_base: float = 0.0
    g_controlled: float = 0.0
    beta: float = 1.0
    lam: float = 1.0
    load: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))


class LiveRoutes:
    """Follows the telemetry topic in a thread of its own; `render()` draws the newest sessions."""

    def __init__(self, settings: Settings, prefix: str) -> None:
        self._settings = settings
        self._prefix = prefix
        self._sessions: OrderedDict[str, dict[int, LayerTotals]] = OrderedDict()
        self._ambiguity: dict[str, float] = {}
        self._lock = threading.Lock()
        self._records: TopicReader[TelemetryView] | None = None
        self._ready = threading.Event()
        self.chunks = 0
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._follow, name="live-routes", daemon=True)

    def start(self) -> None:
        """Start following from the topic's present end; returns when the end is known."""
        self._thread.start()
        self._ready.wait(10)

    def stop(self) -> None:
        """Stop following."""
        if self._records is not None:
            self._records.stop()
        if self._thread.is_alive():
            self._thread.join(10)

    def _follow(self) -> None:
        try:
            with read_telemetry(
                "latest", follow=True, config=sdk_config(self._settings)
            ) as records:
                self._records = records
                self._ready.set()
                for record in records:
                    if record.session_id.startswith(self._prefix):
                        self._add(record)
        except (
            Exception
        ) as error:  # shown by render(); the demo's figures do not depend on the view
            self.failure = error
        finally:
            self._ready.set()

    def _add(self, record: TelemetryView) -> None:
        with self._lock:
            self.chunks += 1
            layers = self._sessions.setdefault(record.session_id, {})
            self._sessions.move_to_end(record.session_id)
            if record.a_star is not None:
                self._ambiguity[record.session_id] = record.a_star
            for index, layer in enumerate(record.layers):
                totals = layers.setdefault(layer, LayerTotals())
                tokens = int(record.tokens[index])
                if not tokens:
                    continue
                totals.tokens += tokens
                totals.flips_base += int(record.winner_flips_base[index])
                totals.flips += int(record.winner_flips_controlled[index])
                totals.entropy = float(record.route_entropy[index])
                totals.g_base = float(record.g_base[index])
                totals.g_controlled = float(record.g_controlled[index])
                totals.beta, totals.lam = float(record.beta[index]), float(record.lam[index])
                load = record.load[index].astype(float)
                totals.load = load if not totals.load.size else totals.load + load

    def render(self, status: str) -> Group:
        """The present picture."""
        table = Table(box=None, header_style="bold", pad_edge=False, expand=False)
        for title, justify in (
            ("session", "left"), ("A*", "right"), ("layer", "right"), ("tokens", "right"), ("entropy", "right"),
            ("G base", "right"), ("G ctrl", "right"), ("flips", "right"), ("ŵ flips", "right"), ("β", "right"),
            ("λ", "right"), ("load", "left"),
        ):  # fmt: skip
            table.add_column(title, justify=justify)  # type: ignore[arg-type]
        with self._lock:
            shown = list(self._sessions.items())[-SESSIONS_SHOWN:]
            for session, layers in shown:
                for position, (layer, totals) in enumerate(sorted(layers.items())):
                    first = position == 0
                    ambiguity = self._ambiguity.get(session)
                    table.add_row(
                        Text(session.removeprefix(self._prefix), style="cyan") if first else "",
                        f"{ambiguity:.2f}" if first and ambiguity is not None else "",
                        str(layer), str(totals.tokens), f"{totals.entropy:.2f}", f"{totals.g_base:.3f}",
                        f"{totals.g_controlled:.3f}", str(totals.flips_base), str(totals.flips),
                        f"{totals.beta:.2f}", f"{totals.lam:.2f}", bars(totals.load),
                    )  # fmt: skip
        note = Text(status, style="bold")
        if self.failure is not None:
            note.append(f"\nthe live view stopped: {self.failure}", style="yellow")
        return Group(note, table)


def bars(load: npt.NDArray[np.float64]) -> str:
    """Load per expert as a row of bars.

    >>> import numpy as np
    >>> bars(np.array([0.0, 7.0]))
    '▁█'
    """
    if not load.size or not load.max():
        return ""
    return "".join(BARS[int(value / load.max() * (len(BARS) - 1))] for value in load)
