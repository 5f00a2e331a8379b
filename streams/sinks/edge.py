"""Where a batch's actions meet Kafka and ClickHouse, with what the metrics want to know of them."""

from __future__ import annotations

from collections.abc import Callable

from routekeel.schemas.tables import DEAD_LETTERS_TABLE
from routekeel.streams.sinks.actions import (
    Action,
    FindLetters,
    FindRows,
    Insert,
    SendLetters,
    VerifyLog,
)
from routekeel.streams.sinks.letters import LetterProducer
from routekeel.streams.sinks.log_ids import LogIds
from routekeel.streams.sinks.metrics import SinkMetrics
from routekeel.streams.sinks.outcomes import Absent, Done, Failed, Found, Outcome
from routekeel.streams.sinks.store import StoreUnavailable, TableStore


class SinkEdge:
    """Performs actions. Used by several threads at once."""

    def __init__(
        self,
        store: TableStore,
        letters: LetterProducer,
        log_ids: LogIds,
        metrics: SinkMetrics,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._letters = letters
        self._log_ids = log_ids
        self._metrics = metrics
        self._clock = clock

    def perform(self, action: Action) -> Outcome:
        """Do it and say what came of it."""
        match action:
            case VerifyLog():
                return self._log_ids.verify(action)
            case SendLetters():
                return self._letters.send(action.source, action.letters)
            case FindLetters():
                try:
                    return Found(self._store.known_letters(DEAD_LETTERS_TABLE, action.keys))
                except StoreUnavailable as error:
                    return Failed(str(error))
            case FindRows():
                try:
                    return Done() if self._store.has(action.insert) else Absent()
                except StoreUnavailable as error:
                    return Failed(str(error))
            case Insert():
                return self._insert(action)

    def _insert(self, action: Insert) -> Outcome:
        began = self._clock()
        outcome = self._store.insert(action)
        if isinstance(outcome, Done):
            table = action.table.name
            self._metrics.insert_s.labels(table).observe(self._clock() - began)
            self._metrics.insert_bytes.inc(len(action.payload.data))
        return outcome
