"""What the producer remembers of each session: its sequence, and the drops it has to report.

The map is bounded: beyond the limit the least recently used session is forgotten. If it comes back
it must not count from 0 under the same producer epoch, for the stream would take its chunks for
repeats, and a number that is too high would look like chunks lost. So every session that is first
seen after a forgetting counts from 0 under a newer epoch, and is a new producer to the stream.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable


class SessionCount:
    """One session: the next sequence, its epoch, drops to report, the head of its records."""

    __slots__ = ("dropped", "epoch", "head", "head_of", "key", "sequence")

    def __init__(self, key: bytes, epoch: int) -> None:
        self.key = key
        self.epoch = epoch
        self.sequence = 0
        self.dropped = 0
        self.head = b""
        self.head_of: tuple[object, ...] = ()


class SessionCounts:
    """The sessions of one producer, at most `limit`. Not thread-safe: the sender's lock guards it.

    `unreported` counts drops that belong to no remembered session; they travel with the next chunk
    that is sent, whichever session that is of.

    >>> counts = SessionCounts(1, lambda: 1000)
    >>> a = counts.enter("a"); a.sequence = 7; a.dropped = 2
    >>> counts.enter("b").epoch, counts.unreported
    (1001, 2)
    >>> counts.enter("a").sequence, counts.enter("a").epoch
    (0, 1002)
    """

    __slots__ = ("_clock_us", "_limit", "_sessions", "epoch", "evicted", "unreported")

    def __init__(self, limit: int, clock_us: Callable[[], int]) -> None:
        self._limit = limit
        self._clock_us = clock_us
        self._sessions: OrderedDict[str, SessionCount] = OrderedDict()
        self.epoch = clock_us()
        self.unreported = 0
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, session_id: str) -> SessionCount | None:
        """The session where it is remembered; it does not become more recent by that."""
        return self._sessions.get(session_id)

    def recall(self, session_id: str) -> SessionCount | None:
        """The session where it is remembered, now the most recent."""
        session = self._sessions.get(session_id)
        if session is not None:
            self._sessions.move_to_end(session_id)
        return session

    def enter(self, session_id: str) -> SessionCount:
        """The session, now the most recent; a new one where it is not remembered."""
        sessions = self._sessions
        session = self.recall(session_id)
        if session is not None:
            return session
        if len(sessions) >= self._limit:
            _, forgotten = sessions.popitem(last=False)
            self.unreported += forgotten.dropped
            self.evicted += 1
            self.epoch = max(self.epoch + 1, self._clock_us())
        session = sessions[session_id] = SessionCount(session_id.encode(), self.epoch)
        return session

    def dropped(self, session_id: str | None, chunks: int = 1) -> None:
        """Remember dropped chunks until a chunk that is sent can report them."""
        session = self._sessions.get(session_id) if session_id is not None else None
        if session is None:
            self.unreported += chunks
        else:
            session.dropped += chunks
