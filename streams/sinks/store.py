"""The tables as the sink uses them: how far they are, which dead letters they have, inserts.

Errors become outcomes here: what the server said definitively, what may be tried again, and what
may have been done although nobody said so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError
from urllib3.exceptions import ConnectTimeoutError, HTTPError, MaxRetryError, NewConnectionError

from routekeel.schemas.clickhouse import name as quoted
from routekeel.schemas.tables import Table
from routekeel.streams.sinks.actions import Insert
from routekeel.streams.sinks.dedupe import LetterKey, SourceKey, TableProgress
from routekeel.streams.sinks.items import Route
from routekeel.streams.sinks.lease import LeaseTerms
from routekeel.streams.sinks.leased_body import LeasedBody, LeaseLapsed
from routekeel.streams.sinks.outcomes import Done, Failed, Fault, Outcome, RefusedByStore, fault_of
from routekeel.streams.sinks.payload import FORMAT

log = logging.getLogger(__name__)

UNKNOWN_STATUS_OF_INSERT: Final = 319
ERROR_CHARS_MAX: Final = 500


UNREADABLE = ("Empty marks file", "while reading from part", "CANNOT_READ_ALL_DATA")


class StoreUnavailable(Exception):
    """ClickHouse gave no answer to a read; to be retried."""


class TableStore:
    """Reads and inserts through one client, which several threads may share."""

    def __init__(
        self,
        client: Client,
        database: str,
        terms: LeaseTerms,
        cluster: str = "",
        may_send: Callable[[], bool] = lambda: True,
    ) -> None:
        self._client = client
        self._may_send = may_send
        self._database = database
        self._settings: dict[str, Any] = {
            "async_insert": 0,
            "insert_deduplicate": 1,
            "max_execution_time": terms.execution_s,
            "http_receive_timeout": terms.transfer_s,
        }
        if cluster:
            # A distributed table otherwise answers before the rows are on their shard.
            self._settings["distributed_foreground_insert"] = 1

    def progress(
        self, route: Route, topic_id: str, partitions: Iterable[int]
    ) -> dict[int, dict[str, TableProgress]]:
        """How far each of the route's tables is, by log partition. Raises StoreUnavailable.

        Read from a projection that keeps just these maxima, whatever the size of the table; where the server
        cannot read that, from the rows.
        """
        wanted = list(partitions)
        out: dict[int, dict[str, TableProgress]] = {partition: {} for partition in wanted}
        for table in route.tables:
            stored: dict[int, int] = {}
            sources: dict[SourceKey, int] = {}
            for log_id, partition, source_id, source_partition, last, source in self._maxima(table):
                if log_id == topic_id:
                    stored[partition] = max(stored.get(partition, -1), last)
                key = (source_id, source_partition)
                sources[key] = max(sources.get(key, -1), source)
            for partition in wanted:
                last = stored.get(partition, -1)
                out[partition][table.name] = TableProgress(last, last, sources)
        return out

    def _maxima(self, table: Table) -> Sequence[Any]:
        place = self._place(table)
        text = (
            "SELECT log_topic_id, log_partition, source_topic_id, source_partition, "
            f"max(log_offset), max(source_offset) FROM {place} GROUP BY ALL"
        )
        try:
            return self._query(text)
        except StoreUnavailable as error:
            # A merge on a full disk can leave a part with a projection that has no marks (seen of 26.9): the
            # rows are whole, and every query that takes the projection fails.
            try:
                found = self._query(text, settings={"optimize_use_projections": 0})
            except StoreUnavailable as worse:
                raise StoreUnavailable(_with_remedy(str(worse), place)) from worse
            log.warning(
                "the projection last_offset of %s cannot be read (%s): its rows are asked instead, which takes "
                "longer. CHECK TABLE %s makes the server leave out what is broken",
                place, error, place,
            )  # fmt: skip
            return found

    def known_letters(self, table: Table, keys: Sequence[LetterKey]) -> frozenset[LetterKey]:
        """Those of the identities that the table has, and perhaps others. Raises StoreUnavailable.

        Asked for as ranges of the sorting key, so that a flood of letters is no flood of text.
        """
        ranges: dict[SourceKey, tuple[int, int]] = {}
        for topic_id, partition, offset in keys:
            low, high = ranges.get((topic_id, partition), (offset, offset))
            ranges[topic_id, partition] = min(low, offset), max(high, offset)
        found: set[LetterKey] = set()
        for (topic_id, partition), (low, high) in ranges.items():
            rows = self._query(
                f"SELECT DISTINCT source_offset FROM {self._place(table)} WHERE "
                "source_topic_id = {topic:String} AND source_partition = {partition:Int32} "
                "AND source_offset BETWEEN {low:Int64} AND {high:Int64}",
                {"topic": topic_id, "partition": partition, "low": low, "high": high},
            )
            found.update((topic_id, partition, offset) for (offset,) in rows)
        return frozenset(found)

    def insert(self, action: Insert) -> Outcome:
        """Insert under the token, once: no retry below this, so that the lease's bound holds."""
        payload = action.payload.data
        try:
            answer = self._client.raw_insert(
                self._place(action.table),
                [column.name for column in action.table.filled],
                # A file is not sent again by the client itself, which bytes would be.
                LeasedBody(payload, self._may_send),
                settings={**self._settings, "insert_deduplication_token": action.token},
                fmt=FORMAT,
                transport_settings={"Content-Length": str(len(payload))},
            )
        except LeaseLapsed as error:
            return Failed(str(error))
        except ClickHouseError as error:
            return outcome_of(error)
        except (OSError, HTTPError) as error:
            return Failed(_text(error), unknown=not _never_sent(error))
        if action.payload.rows and answer.summary.get("written_rows") == "0":
            # Seen of the embedded engine when an insert ran out of time: a success without rows.
            # A server that knew the token may say the same, so the answer is in the table.
            return self._confirm(action)
        return Done()

    def _confirm(self, action: Insert) -> Outcome:
        try:
            if self.has(action):
                return Done()
        except StoreUnavailable as error:
            return Failed(str(error), unknown=True)
        return Failed("the server took no rows and gave no reason")

    def has(self, action: Insert) -> bool:
        """Whether the table has the last row of an insert, and so all of them. Raises StoreUnavailable."""
        found = self._query(
            f"SELECT 1 FROM {self._place(action.table)} WHERE log_topic_id = {{topic:String}} "
            "AND log_partition = {partition:Int32} AND log_offset = {last:Int64} LIMIT 1",
            {
                "topic": action.source.topic_id,
                "partition": action.source.partition,
                "last": action.last,
            },
        )
        return bool(found)

    def _place(self, table: Table) -> str:
        return f"{quoted(self._database)}.{quoted(table.name)}"

    def _query(
        self,
        text: str,
        parameters: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Sequence[Any]:
        try:
            rows: Sequence[Any] = self._client.query(
                text, parameters=dict(parameters or {}), settings=dict(settings or {})
            ).result_rows
            return rows
        except (ClickHouseError, OSError, HTTPError) as error:
            raise StoreUnavailable(_text(error)) from error


def outcome_of(error: ClickHouseError) -> Outcome:
    """What an error of an insert means. One without a code came from the way there and back."""
    code = getattr(error, "code", None)
    if code is None:
        return Failed(_text(error), unknown=not _never_sent(error))
    fault = fault_of(code)
    if fault is Fault.SERVICE:
        return Failed(_text(error), unknown=code == UNKNOWN_STATUS_OF_INSERT)
    return RefusedByStore(fault, _text(error))


def _never_sent(error: BaseException) -> bool:
    """Whether no connection came about at all."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ConnectionRefusedError | NewConnectionError | ConnectTimeoutError):
            return True
        if isinstance(seen, MaxRetryError) and seen.reason is not None:
            seen = seen.reason
        else:
            seen = seen.__cause__ or seen.__context__
    return False


def _with_remedy(text: str, place: str) -> str:
    """What a merge on a full disk can leave is a part that cannot be read at all, over those it was made of."""
    if not any(words in text for words in UNREADABLE):
        return text
    return (
        f"a part of {place} cannot be read, as a merge on a full disk leaves it. The parts that it was merged "
        "from are kept for a while (old_parts_lifetime, 8 minutes if not set): stop the server, move the part's "
        "folder out of the table's, start it again, and it has them; `routekeel audit` says what is missing "
        f"then. ATTACH without that takes the part for an empty one. {text}"
    )


def _text(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    start = text.find("Code: ")
    return text[max(0, start) :].split(" (for url")[0][:ERROR_CHARS_MAX]
