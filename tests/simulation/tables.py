"""ClickHouse's tables in memory, as TableStore has them: maxima, tokens, inserts that happen or do not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pyarrow as pa

from routekeel.schemas.tables import TABLES, Table
from routekeel.streams.sinks.actions import Insert
from routekeel.streams.sinks.dedupe import LetterKey, SourceKey, TableProgress
from routekeel.streams.sinks.items import Route
from routekeel.streams.sinks.outcomes import Done, Fault, Outcome, RefusedByStore

Row = dict[str, Any]


class SimTables:
    """Keeps what an insert's Arrow bytes say. `refuses` says of a row that it is wrong."""

    def __init__(self) -> None:
        self.rows: dict[str, list[Row]] = {table.name: [] for table in TABLES}
        self.tokens: dict[str, bytes] = {}
        self.refuses: Callable[[Row], bool] = lambda row: False

    def progress(
        self, route: Route, topic_id: str, partitions: Iterable[int]
    ) -> dict[int, dict[str, TableProgress]]:
        """How far each of the route's tables is, by log partition."""
        wanted = list(partitions)
        found: dict[int, dict[str, TableProgress]] = {partition: {} for partition in wanted}
        for table in route.tables:
            stored: dict[int, int] = {}
            sources: dict[SourceKey, int] = {}
            for row in self.rows[table.name]:
                if row["log_topic_id"] == topic_id:
                    partition = row["log_partition"]
                    stored[partition] = max(stored.get(partition, -1), row["log_offset"])
                key = (row["source_topic_id"], row["source_partition"])
                sources[key] = max(sources.get(key, -1), row["source_offset"])
            for partition in wanted:
                last = stored.get(partition, -1)
                found[partition][table.name] = TableProgress(last, last, sources)
        return found

    def known_letters(self, table: Table, keys: Sequence[LetterKey]) -> frozenset[LetterKey]:
        """Those of the identities that the table has."""
        stored = {
            (row["source_topic_id"], row["source_partition"], row["source_offset"])
            for row in self.rows[table.name]
        }
        return frozenset(stored & set(keys))

    def has(self, action: Insert) -> bool:
        """Whether the last row of an insert is there."""
        source = action.source
        last = (source.topic_id, source.partition, action.last)
        return any(
            (row["log_topic_id"], row["log_partition"], row["log_offset"]) == last
            for row in self.rows[action.table.name]
        )

    def insert(self, action: Insert) -> Outcome:
        """All rows, or none where one is refused; a token that was seen adds nothing.

        Strict where a server is silent: a token with other bytes fails the test.
        """
        known = self.tokens.get(action.token)
        assert known in (None, action.payload.data), f"{action.token} names two batches"
        if known is None:
            rows: list[Row] = pa.ipc.open_stream(action.payload.data).read_all().to_pylist()
            if any(self.refuses(row) for row in rows):
                return RefusedByStore(Fault.DATA, "a value does not fit its column")
            self.tokens[action.token] = action.payload.data
            self.rows[action.table.name] += rows
        return Done()
