"""Sessions: what SET, USE and temporary tables leave behind, under a session id.

Clients send a session id with every request, nearly always in vain. A session therefore costs
nothing but its lock until a statement changes its state; from then on it keeps one connection.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from routekeel.infra.local.gateway.engine import Engine, apply_settings
from routekeel.infra.local.gateway.replies import (
    READONLY,
    SESSION_IS_LOCKED,
    SESSION_NOT_FOUND,
    TOO_MANY_QUERIES,
    ClickHouseError,
)
from routekeel.infra.local.gateway.sql import identifier, quoted
from routekeel.infra.local.gateway.statement import Statement

logger = logging.getLogger(__name__)

SESSIONS_MAX = 1000
LOCK_WAIT_S = 1.0
Release = Callable[[Any], None]


@dataclass
class Session:
    """One session. `connection` is None while nothing in it needs one."""

    timeout_s: int
    used: float
    connection: Any = None
    database: str = ""
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)


class Sessions:
    """All sessions, least recently used first. Touched by the event loop's thread only."""

    def __init__(self) -> None:
        self._by_id: OrderedDict[str, Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_id)

    @asynccontextmanager
    async def held(self, statement: Statement) -> AsyncIterator[Session | None]:
        """The statement's session for as long as it runs; None when it names none.

        Raises ClickHouseError when the session is busy, or was to exist and does not.
        """
        if statement.session_id is None:
            yield None
            return
        session = self._open(statement)
        try:
            # A client's next request may come before this one's end has been noticed here.
            async with asyncio.timeout(LOCK_WAIT_S):
                await session.busy.acquire()
        except TimeoutError:
            raise ClickHouseError.of(
                SESSION_IS_LOCKED, "SESSION_IS_LOCKED", "Session is locked by a concurrent client"
            ) from None
        try:
            yield session
        finally:
            session.busy.release()
            session.used = time.monotonic()

    def _open(self, statement: Statement) -> Session:
        name = statement.session_id or ""
        session = self._by_id.get(name)
        if session is None:
            if statement.session_check:
                raise ClickHouseError.of(
                    SESSION_NOT_FOUND, "SESSION_NOT_FOUND", "Session not found"
                )
            self._make_room()
            session = self._by_id[name] = Session(statement.session_timeout_s, time.monotonic())
        session.timeout_s = statement.session_timeout_s
        self._by_id.move_to_end(name)
        return session

    def _make_room(self) -> None:
        """Drop the idlest session without state once there are too many."""
        if len(self._by_id) < SESSIONS_MAX:
            return
        for name, session in self._by_id.items():
            if not session.busy.locked() and session.connection is None:
                del self._by_id[name]
                return
        raise ClickHouseError.of(
            TOO_MANY_QUERIES, "TOO_MANY_SIMULTANEOUS_QUERIES", f"More than {SESSIONS_MAX} sessions"
        )

    def take_expired(self, everything: bool = False) -> list[Any]:
        """Forget idle sessions past their time; the connections to close, in a thread."""
        now = time.monotonic()
        gone = [
            name
            for name, session in self._by_id.items()
            if everything or (not session.busy.locked() and now - session.used > session.timeout_s)
        ]
        sessions = [self._by_id.pop(name) for name in gone]
        return [s.connection for s in sessions if s.connection is not None]


def take(
    engine: Engine,
    session: Session | None,
    statement: Statement,
    default_database: str,
    marker: str,
) -> tuple[Any, Release]:
    """A connection ready for the statement, and how to give it back. Raises ClickHouseError.

    A fresh one, or the session's own where there is state to see or to make. Blocks.
    """
    stateless = session is None or session.connection is None
    if session is None or (stateless and not statement.shape.changes_session):
        connection = engine.connect()
        try:
            engine.prepare(connection, statement, default_database, marker)
        except BaseException:
            engine.release(connection)
            raise
        return connection, engine.release
    if session.connection is None:
        session.connection = engine.connect()
        session.database = default_database
        session.connection.query(f"USE {identifier(default_database)}")
    return session.connection, _lay_over(engine, session, statement)


def _lay_over(engine: Engine, session: Session, statement: Statement) -> Release:
    """Lay the request's settings over the session's; the result takes them off again."""
    connection = session.connection
    if statement.read_only and not _only_reads(connection, statement):
        raise ClickHouseError.of(READONLY, "READONLY", "Cannot execute query in readonly mode")
    settings = engine.capped(statement.settings)
    before = _current(connection, settings)

    def restore(connection: Any) -> None:
        try:
            for name, value in before.items():
                connection.query(f"SET {name} = {'DEFAULT' if value is None else quoted(value)}")
            if statement.shape.first == "USE":
                session.database = _value(connection, "SELECT currentDatabase() AS v")
            connection.query(f"USE {identifier(session.database)}")
        except RuntimeError:
            logger.warning("a session's settings could not be restored", exc_info=True)

    try:
        if statement.database:
            connection.query(f"USE {identifier(statement.database)}")
        apply_settings(connection, settings)
    except RuntimeError as error:
        restore(connection)
        raise ClickHouseError.from_engine(error) from error
    return restore


def _only_reads(connection: Any, statement: Statement) -> bool:
    if statement.shape.first in ("SET", "USE"):
        return True
    judged = connection.classify_query(statement.text, "")
    return bool(judged["query_class"].name == "READ_ONLY")


def _current(connection: Any, names: dict[str, str]) -> dict[str, str | None]:
    """The settings as they are; None for those at their default."""
    if not names:
        return {}
    listed = ", ".join(quoted(name) for name in names)
    rows = connection.query(
        f"SELECT name, value, changed FROM system.settings WHERE name IN ({listed})",
        "JSONCompactEachRow",
    ).bytes()
    parsed = [json.loads(line) for line in bytes(rows).splitlines()]
    return {name: value if changed else None for name, value, changed in parsed}


def _value(connection: Any, text: str) -> str:
    return str(json.loads(bytes(connection.query(text, "JSONEachRow").bytes()))["v"])
