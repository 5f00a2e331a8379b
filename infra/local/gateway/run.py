"""One statement's way through the engine: connection, settings, result, connection back.

Everything here blocks and belongs in a worker thread. A short result is complete after one call, so
that a small query costs one change of threads.
"""

from __future__ import annotations

import threading
import uuid
from contextlib import suppress
from typing import Any

from routekeel.infra.local.gateway import sessions
from routekeel.infra.local.gateway.engine import Engine
from routekeel.infra.local.gateway.replies import (
    QUERY_WAS_CANCELLED,
    UNKNOWN_STATUS_OF_INSERT,
    ClickHouseError,
    Progress,
)
from routekeel.infra.local.gateway.statement import Statement

# Formats whose chunks may be joined: no header, no footer. The others are made whole.
STREAMED_FORMATS = frozenset(
    {
        "Native",
        "TabSeparated",
        "TSV",
        "TabSeparatedRaw",
        "TSVRaw",
        "CSV",
        "RowBinary",
        "JSONEachRow",
    }
)
COPIED_BYTES_MAX = 1024 * 1024  # a whole result up to this size does not keep its connection
FREES_ROOM = frozenset({"DROP", "TRUNCATE"})
_NOT_STREAMABLE = "Streaming query is not supported"

Part = bytes | memoryview


class Run:
    """One statement. After `begin` the first parts are in `held`; `ended` says if that is all."""

    def __init__(
        self,
        engine: Engine,
        session: sessions.Session | None,
        statement: Statement,
        default_database: str,
    ) -> None:
        self.statement = statement
        self.progress = Progress()
        self.held: list[Part] = []
        self.ended = False
        self.marker = uuid.uuid4().hex  # by it the engine finds the query to end it
        self._engine = engine
        self._session = session
        self._default_database = default_database
        self._release: sessions.Release = engine.release
        self._connection: Any = None
        self._stream: Any = None
        self._whole: Any = None
        self._guard = threading.Lock()
        self._turn = threading.Lock()  # of who takes from the stream, or ends it
        self._given_up = False
        self._broken_before = 0

    @property
    def closed(self) -> bool:
        """Whether the connection was given back, or never taken."""
        return self._connection is None

    def begin(self) -> None:
        """Take a connection, run the statement, fetch the first parts. Raises ClickHouseError."""
        mender = self._engine.mender
        self._broken_before = (
            mender.broken
        )  # first this, or a mending between the two goes unnoticed
        if self.statement.shape.first not in FREES_ROOM:
            mender.refuse_while_mending()
        self._connection, self._release = sessions.take(
            self._engine, self._session, self.statement, self._default_database, self.marker
        )
        try:
            self._start()
        except RuntimeError as error:
            self._engine.mender.look_at(str(error))
            raise ClickHouseError.from_engine(error) from error
        if self._stream is not None or self._given_up:
            # A second part is asked for at once: most results have none, and are complete then.
            self.held += [part for part in (self._fetch(), self._fetch()) if part]
        self.ended = self._stream is None
        if self.ended and sum(map(len, self.held)) <= COPIED_BYTES_MAX:
            self.held = [bytes(part) for part in self.held]
            self.close()

    def more(self) -> bytes | None:
        """The stream's next part, None at its end. Raises ClickHouseError."""
        part = self._fetch()
        self.ended = self._stream is None
        return part

    def give_up(self) -> None:
        """End a stream, which its client could take for ever: for another thread. It hears so next."""
        with self._turn:
            self._given_up = self._stream is not None
        if self._given_up:
            self.close()

    def close(self) -> None:
        """Give up what is left of the stream, then the connection. May be called twice."""
        with self._guard:
            connection, self._connection = self._connection, None
            stream, self._stream, self._whole = self._stream, None, None
        self._engine.streams.discard(self.give_up)
        if connection is None:
            return
        if stream is not None:
            with suppress(RuntimeError):  # it may have ended on its own meanwhile
                connection.streaming_cancel_query(stream)
        self._release(connection)

    def _start(self) -> None:
        if self.statement.shape.first == "INSERT":
            self._insert()
        else:
            self._ask()

    def _ask(self) -> None:
        statement = self.statement
        arguments = (statement.text, statement.format)
        if self._streams():
            try:
                self._stream = self._connection.send_query(*arguments, params=statement.parameters)
                self._engine.streams.add(self.give_up)
                if self._engine.mender.is_mending:  # it began between this one's permit and now
                    self.give_up()
                return
            except RuntimeError as error:
                if _NOT_STREAMABLE not in str(error):
                    raise
        result = self._connection.query(*arguments, params=statement.parameters)
        self._count(result)
        if result.size():
            self._whole = result  # owns the bytes that the view shows
            self.held.append(result.get_memview().view())

    def _streams(self) -> bool:
        shape = self.statement.shape
        return (
            shape.first in ("SELECT", "WITH")
            and self.statement.format in STREAMED_FORMATS
            and not shape.words & {"TOTALS", "EXTREMES"}
        )

    def _insert(self) -> None:
        """Insert, and make sure of it: the engine says 'done' of an insert that a full disk refused.

        Either an error has occurred meanwhile, or the part that was written is not whole, and then it is
        set aside. Both can be another insert's at the same time, so all that can be said is that the
        outcome is not known; a token makes trying again safe.
        """
        engine, data = self._engine, self.statement.data
        before = engine.errors()
        if data is None:
            self._ask()
        else:
            self._append(data)
        engine.mender.check_new()
        occurred = list(engine.errors() - before) if data is not None else []
        if engine.mender.broken != self._broken_before:
            occurred.append("a part that was not written whole")
        if occurred:
            raise ClickHouseError.of(
                UNKNOWN_STATUS_OF_INSERT,
                "UNKNOWN_STATUS_OF_INSERT",
                f"{', '.join(occurred)} occurred during this insert; it may or may not be done",
            )

    def _append(self, data: bytes) -> None:
        stream = self._connection.send_insert(self.statement.text, self.statement.format)
        try:
            if data:
                self._connection.insert_append(stream, data)
        except BaseException:
            with suppress(RuntimeError):  # the first error is the one to tell
                self._connection.insert_cancel(stream)
            raise
        self._count(self._connection.insert_done(stream))

    def _fetch(self) -> bytes | None:
        with self._turn:
            return self._take()

    def _take(self) -> bytes | None:
        if self._given_up:
            raise ClickHouseError.of(
                QUERY_WAS_CANCELLED,
                "QUERY_WAS_CANCELLED",
                "The table had to be detached, to set a part aside that is not whole; ask again",
            )
        if self._stream is None:
            return None
        try:
            part = self._connection.streaming_fetch_result(self._stream)
        except RuntimeError as error:
            self._stream = None
            self._engine.mender.look_at(str(error))
            raise ClickHouseError.from_engine(error) from error
        if part is None or part.rows_read() == 0:
            self._stream = None
            return None
        self._count(part)
        return bytes(part.bytes())

    def _count(self, part: Any) -> None:
        progress = self.progress
        progress.result_rows += part.rows_read()
        progress.result_bytes += part.size()
        progress.read_rows = max(progress.read_rows, part.storage_rows_read())
        progress.read_bytes = max(progress.read_bytes, part.storage_bytes_read())
        progress.written_rows += part.rows_written()
        progress.written_bytes += part.bytes_written()
        progress.elapsed_ns = int(part.elapsed() * 1e9)
