"""The gateway's HTTP side: reads requests, runs statements in threads, streams the replies.

The event loop never waits for the engine, so /ping answers whatever the queries do. A SELECT whose
client has gone is ended; an INSERT is always finished.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from aiohttp import web

from routekeel.infra.local.gateway import encoding, sessions, statement
from routekeel.infra.local.gateway.access import Access
from routekeel.infra.local.gateway.engine import Engine
from routekeel.infra.local.gateway.replies import (
    EXCEPTION_CODE,
    NOT_IMPLEMENTED,
    REQUIRED_PASSWORD,
    TOO_MANY_QUERIES,
    ClickHouseError,
)
from routekeel.infra.local.gateway.reply import Reply
from routekeel.infra.local.gateway.run import Run

logger = logging.getLogger(__name__)
T = TypeVar("T")

BODY_BYTES_MAX = 512 * 1024 * 1024
RUNNING_MAX = 64  # threads; more statements wait
WAITING_MAX = 512  # statements in all before new ones are refused
INLINE_BYTES_MAX = 64 * 1024  # a body decoded and scanned without changing threads
KILL_INTERVAL_S = 0.5
SWEEP_INTERVAL_S = 5.0
ERROR_LOG_CHARS = 500


class Gateway:
    """One engine behind HTTP. Made and used in one event loop."""

    def __init__(self, engine: Engine, access: Access, database: str) -> None:
        self.engine = engine
        self._access = access
        self._database = database
        self._sessions = sessions.Sessions()
        self._pool = ThreadPoolExecutor(RUNNING_MAX, thread_name_prefix="statement")
        self._killer = ThreadPoolExecutor(1, thread_name_prefix="kill")
        self._statements = 0

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        app.router.add_get("/ping", self._ping)
        app.router.add_get("/replicas_status", self._ping)
        app.router.add_get("/", self._get)
        app.router.add_post("/", self._post)
        return app

    async def sweep(self) -> None:
        """Close sessions past their time, for ever."""
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            for connection in self._sessions.take_expired():
                await self._in_thread(self.engine.release, connection)

    async def close(self) -> None:
        """Finish what runs, close sessions, shut the engine down so that data are on disk."""
        loop = asyncio.get_running_loop()
        self.engine.mender.stop_waiting()
        await loop.run_in_executor(None, self._pool.shutdown)
        await loop.run_in_executor(None, self._killer.shutdown)
        for connection in self._sessions.take_expired(everything=True):
            self.engine.release(connection)
        self.engine.close()

    async def _ping(self, _: web.Request) -> web.Response:
        return web.Response(text="Ok.\n", content_type="text/html")

    async def _get(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, read_only=True)

    async def _post(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, read_only=False)

    async def _answer(self, request: web.Request, *, read_only: bool) -> web.StreamResponse:
        options = dict(request.query)
        query_id = options.get("query_id", "")
        try:
            if self._statements >= WAITING_MAX:
                raise ClickHouseError.of(
                    TOO_MANY_QUERIES,
                    "TOO_MANY_SIMULTANEOUS_QUERIES",
                    f"Too many simultaneous queries. Maximum: {WAITING_MAX}",
                )
            self._statements += 1
            try:
                if not options and read_only:
                    return await self._ping(request)
                self._access.check(request.headers, options)
                found = await self._read(request, options, read_only)
                if found is None:
                    return web.Response(text="Ok.\n", content_type="text/html")
                query_id = found.query_id
                async with self._sessions.held(found) as session:
                    return await self._execute(request, found, session)
            finally:
                self._statements -= 1
        except ClickHouseError as error:
            return self._refuse(error, query_id)

    async def _read(
        self, request: web.Request, options: dict[str, str], read_only: bool
    ) -> statement.Statement | None:
        """Body and parameters as a statement. `options` gains a form's fields."""
        if request.content_type == "multipart/form-data":
            for name, value in (await request.post()).items():
                if isinstance(value, web.FileField) or not (
                    name == "query" or name.startswith("param_")
                ):
                    raise ClickHouseError.of(
                        NOT_IMPLEMENTED,
                        "NOT_IMPLEMENTED",
                        "External data are not available in the embedded engine",
                    )
                options[name] = value if isinstance(value, str) else bytes(value).decode()
            body = b""
        else:
            body = await request.read()
        name = request.headers.get("Content-Encoding", "")
        database = request.headers.get("X-ClickHouse-Database")
        if database:
            options.setdefault("database", database)
        default_format = request.headers.get("X-ClickHouse-Format")

        def build() -> statement.Statement | None:
            plain = encoding.decode(body, name)
            return statement.build(
                options, plain, read_only=read_only, default_format=default_format
            )

        return build() if len(body) <= INLINE_BYTES_MAX else await self._in_thread(build)

    async def _execute(
        self,
        request: web.Request,
        found: statement.Statement,
        session: sessions.Session | None,
    ) -> web.StreamResponse:
        run = Run(self.engine, session, found, self._database)
        try:
            await self._guarded(run, run.begin)
            reply = Reply(request, self.engine, run, lambda: self._guarded(run, run.more))
            return await reply.send()
        finally:
            if not run.closed:
                await asyncio.shield(self._in_thread(run.close))

    async def _guarded(self, run: Run, call: Callable[[], T]) -> T:
        """Run in a thread; when the client goes, end a SELECT and wait until it has ended."""
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._pool, call)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            reads = run.statement.shape.first in ("SELECT", "WITH")
            while not future.done():
                if reads:
                    await loop.run_in_executor(self._killer, self.engine.kill, run.marker)
                await asyncio.wait([future], timeout=KILL_INTERVAL_S if reads else None)
            raise

    async def _in_thread(self, call: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, call, *arguments)

    def _refuse(self, error: ClickHouseError, query_id: str) -> web.Response:
        if error.status >= 500:
            logger.warning("query %s: %s", query_id, error.text[:ERROR_LOG_CHARS])
        headers = {EXCEPTION_CODE: str(error.code), "X-ClickHouse-Timezone": self.engine.timezone}
        if query_id:
            headers["X-ClickHouse-Query-Id"] = query_id
        if error.code == REQUIRED_PASSWORD:
            headers["WWW-Authenticate"] = 'Basic realm="ClickHouse server HTTP API"'
        return web.Response(
            status=error.status,
            body=error.body(self.engine.version),
            content_type="text/plain",
            charset="utf-8",
            headers=headers,
        )
