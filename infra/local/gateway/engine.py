"""The embedded engine: one folder, many short-lived connections, statements run in threads.

Measured on chDB 26.9: a connection costs 0.14 ms, keeps SET and USE to itself, runs beside others,
and releases the interpreter's lock in every call; calls on one connection wait for each other. So
each statement gets a fresh connection, and only a session that has state keeps one.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from routekeel.infra.local.gateway.replies import ClickHouseError
from routekeel.infra.local.gateway.sql import identifier, quoted
from routekeel.infra.local.gateway.statement import Statement
from routekeel.infra.local.gateway.unreadable import PartMender, mend_before_start

logger = logging.getLogger(__name__)

EXECUTION_TIME_S_MAX = 600
_CAPPED = "max_memory_usage"
_ERRORS = "SELECT name, sum(value) AS value FROM system.errors GROUP BY name"
_MARKER = "log_comment"  # a setting that changes nothing: by it a running query is found


class Engine:
    """The one engine of this process, in the current folder's `data`."""

    def __init__(self, memory_bytes: int, query_memory_bytes: int) -> None:
        # Imported here: it takes a second, and the command line's help should not.
        import chdb

        native: Any = chdb._chdb  # the raw connection: no result conversion is wanted here
        self._connect: Callable[[str], Any] = native.connect
        self._query_memory_bytes = query_memory_bytes
        self._options = "&".join(
            (
                "async_insert=0",
                "implicit_select=0",
                "allow_introspection_functions=0",
                f"{_CAPPED}={query_memory_bytes}",
                f"max_execution_time={EXECUTION_TIME_S_MAX}",
            )
        )
        store = str(Path.cwd() / "data" / "store")
        mend_before_start(store)
        self._root = self._connect(f"data?max_server_memory_usage={memory_bytes}&{self._options}")
        self.mender = PartMender(self.connect, store, self._end_streams)
        self.streams: set[Callable[[], None]] = set()
        """What ends each result that a client takes at its own pace."""
        self.version = self._ask("SELECT version()")
        self.timezone = self._ask("SELECT timezone()")

    def _ask(self, text: str) -> str:
        return bytes(self._root.query(text, "TabSeparated").bytes()).decode().strip()

    def create_database(self, name: str) -> None:
        """Make sure that the database is there."""
        self._root.query(f"CREATE DATABASE IF NOT EXISTS {identifier(name)}")

    def connect(self) -> Any:
        """A connection of its own with the gateway's defaults."""
        return self._connect(f"data?{self._options}")

    @staticmethod
    def release(connection: Any) -> None:
        """Close a connection; an engine error at that point is only logged."""
        try:
            connection.close()
        except RuntimeError:
            logger.debug("closing a connection failed", exc_info=True)

    def prepare(
        self, connection: Any, statement: Statement, default_database: str, marker: str
    ) -> None:
        """Set database, settings and marker on a fresh connection. Raises ClickHouseError."""
        settings = self.capped(statement.settings) | {_MARKER: marker}
        try:
            connection.query(f"USE {identifier(statement.database or default_database)}")
            apply_settings(connection, settings)
            if statement.read_only:
                connection.query("SET readonly = 2")
        except RuntimeError as error:
            raise ClickHouseError.from_engine(error) from error

    def capped(self, settings: Mapping[str, str]) -> dict[str, str]:
        """The settings with the memory limit no higher than this gateway's own."""
        kept = dict(settings)
        wanted = kept.get(_CAPPED)
        if wanted is not None and wanted.isdecimal():
            limit = int(wanted) or self._query_memory_bytes
            kept[_CAPPED] = str(min(limit, self._query_memory_bytes))
        return kept

    def errors(self) -> Counter[str]:
        """How often each error has occurred since the start, by name."""
        connection = self.connect()
        try:
            found = connection.query(_ERRORS, "JSONEachRow")
            rows = [json.loads(line) for line in bytes(found.bytes()).splitlines()]
        finally:
            self.release(connection)
        return Counter({row["name"]: int(row["value"]) for row in rows})

    def kill(self, marker: str) -> None:
        """Ask the engine to end the query that carries the marker, if it still runs."""
        connection = self.connect()
        try:
            connection.query(
                f"KILL QUERY WHERE Settings['{_MARKER}'] = {quoted(marker)} ASYNC", "Null"
            )
        except RuntimeError:
            logger.debug("ending a query failed", exc_info=True)
        finally:
            self.release(connection)

    def _end_streams(self) -> None:
        for give_up in list(self.streams):
            give_up()

    def close(self) -> None:
        """Shut the engine down once every other connection is closed."""
        self.mender.close()
        self._root.close()


def apply_settings(connection: Any, settings: Mapping[str, str]) -> None:
    """SET them all at once; the engine judges names and values."""
    if settings:
        pairs = ", ".join(f"{name} = {quoted(value)}" for name, value in settings.items())
        connection.query(f"SET {pairs}")
