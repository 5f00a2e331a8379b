"""Whether this sink may start an insert: only while no other can own its partitions before it ends.

A commit that the group's coordinator accepted proves that this sink was a member when it was sent,
and a member keeps its partitions for the session timeout after that. An insert that is sure to be
over by then can never meet a new owner's read of the table.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Final

from routekeel.streams.settings import Settings

# Shares of the session timeout; what is left after them is when an insert may still be started.
EXECUTION_SHARE: Final = 0.4
TRANSFER_SHARE: Final = 0.2
MARGIN_SHARE: Final = 0.05


@dataclass(frozen=True, slots=True)
class LeaseTerms:
    """How long a proof lasts, and how long an insert may take, in seconds.

    `execution_s` is the server's max_execution_time for an insert, `transfer_s` the time for
    connecting and sending, which is also the server's receive timeout.
    """

    session_s: float
    execution_s: float
    transfer_s: float

    @staticmethod
    def of(settings: Settings) -> LeaseTerms:
        """The terms that the settings give; an insert never gets more than its share of a session.

        >>> terms = LeaseTerms.of(Settings())
        >>> terms.execution_s, terms.transfer_s, terms.start_window_s
        (8.0, 4.0, 7.0)
        """
        session_s = settings.sink.session_timeout_s
        return LeaseTerms(
            session_s,
            min(settings.sink.insert_timeout_s, EXECUTION_SHARE * session_s),
            min(settings.clickhouse.receive_timeout_s, TRANSFER_SHARE * session_s),
        )

    @property
    def insert_bound_s(self) -> float:
        """How long after the look at the lease an insert is over at the latest."""
        return self.execution_s + self.transfer_s

    @property
    def start_window_s(self) -> float:
        """How long after a proof an insert may still be started."""
        return self.session_s * (1 - MARGIN_SHARE) - self.insert_bound_s


class Lease:
    """The latest proof of membership. Renewed by the consumer's thread, asked by others.

    Times are seconds of one monotonic clock, given by the callers.
    """

    def __init__(self, terms: LeaseTerms) -> None:
        self.terms = terms
        self._proved_at: float | None = None
        self._changed = threading.Condition()

    def prove(self, sent_at: float) -> None:
        """A commit that was sent at this time has been accepted."""
        with self._changed:
            self._proved_at = max(sent_at, self._proved_at or sent_at)
            self._changed.notify_all()

    def drop(self) -> None:
        """The partitions were given up or taken away."""
        with self._changed:
            self._proved_at = None
            self._changed.notify_all()

    def allows(self, now: float) -> bool:
        """Whether an insert may start now."""
        proved = self._proved_at
        return proved is not None and 0 <= now - proved <= self.terms.start_window_s

    def allows_last_byte(self, now: float) -> bool:
        """Whether the rest of an insert may still be sent: only its execution is left after that."""
        proved = self._proved_at
        latest_s = self.terms.start_window_s + self.terms.transfer_s
        return proved is not None and 0 <= now - proved <= latest_s

    def due(self, now: float) -> bool:
        """Whether it is time for another proof: a third of the window is gone."""
        proved = self._proved_at
        return proved is None or now - proved >= self.terms.start_window_s / 3

    def wait(self, timeout_s: float) -> None:
        """Wait until something changes, at most so long."""
        with self._changed:
            self._changed.wait(timeout_s)
