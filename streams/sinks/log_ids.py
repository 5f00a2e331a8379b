"""Kafka's ids of the topics, asked for again whenever an answer must be younger than a batch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

from routekeel.streams.errors import RoutekeelError
from routekeel.streams.settings import Settings
from routekeel.streams.sinks.actions import VerifyLog
from routekeel.streams.sinks.outcomes import Done, Failed, Outcome, Recreated
from routekeel.streams.topics import admin_client, describe


class LogIds:
    """One question at a time answers for every batch that was read before it was asked."""

    def __init__(
        self, settings: Settings, topics: Sequence[str], clock: Callable[[], float]
    ) -> None:
        self._settings = settings
        self._topics = list(topics)
        self._clock = clock
        self._admin = admin_client(settings)
        self._lock = threading.Lock()
        self._ids: dict[str, str] = {}
        self._asked_at = float("-inf")

    def current(self, not_before: float) -> Mapping[str, str]:
        """Topic to id, from an answer that was asked for at `not_before` or later.

        Raises RoutekeelError where Kafka does not answer. A topic that is not there is left out.
        """
        with self._lock:
            if self._asked_at < not_before:
                asked_at = self._clock()
                found = describe(self._settings, self._topics, self._admin)
                self._ids = {name: info.topic_id for name, info in found.items()}
                self._asked_at = asked_at
            return self._ids

    def verify(self, action: VerifyLog) -> Outcome:
        """Whether the source's topic still has the id it was read under."""
        source = action.source
        try:
            found = self.current(action.read_at).get(source.topic)
        except RoutekeelError as error:
            return Failed(error.message)
        if found == source.topic_id:
            return Done()
        return Recreated(f"topic {source.topic} is now {found or 'missing'}, was {source.topic_id}")
