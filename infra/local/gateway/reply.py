"""Sends one statement's result: whole with its summary where it is short, else as a stream.

A failure after the reply has begun is told in the stream, under the tag announced in the headers.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from aiohttp import web

from routekeel.infra.local.gateway import encoding
from routekeel.infra.local.gateway.engine import Engine
from routekeel.infra.local.gateway.replies import (
    EXCEPTION_TAG,
    ClickHouseError,
    exception_block,
    new_tag,
)
from routekeel.infra.local.gateway.run import Part, Run

HELD_BYTES_MAX = 32 * 1024 * 1024  # of a result that the client wants only when it is complete
SLICE_BYTES = 1024 * 1024

_WITH_RESULT = frozenset(
    ["SELECT", "WITH", "SHOW", "DESCRIBE", "DESC", "EXISTS", "EXPLAIN", "CHECK", "KILL"]
)
_CONTENT_TYPES = (
    ("JSON", "application/json; charset=UTF-8"),
    ("CSV", "text/csv; charset=UTF-8"),
    ("Tab", "text/tab-separated-values; charset=UTF-8"),
    ("TSV", "text/tab-separated-values; charset=UTF-8"),
    ("Pretty", "text/plain; charset=UTF-8"),
    ("Markdown", "text/markdown; charset=UTF-8"),
    ("Vertical", "text/plain; charset=UTF-8"),
)


def content_type(name: str) -> str:
    """The Content-Type of an output format."""
    for prefix, kind in _CONTENT_TYPES:
        if name.startswith(prefix):
            return kind
    return "application/octet-stream"


class Reply:
    """The reply to one request. `more` fetches the run's next chunk."""

    def __init__(
        self,
        request: web.Request,
        engine: Engine,
        run: Run,
        more: Callable[[], Awaitable[bytes | None]],
    ) -> None:
        self._request = request
        self._engine = engine
        self._run = run
        self._more = more
        self._tag = new_tag()
        name = None
        if request.query.get("enable_http_compression", "0").lower() in ("1", "true"):
            name = encoding.choose(request.headers.get("Accept-Encoding", ""))
        self._encoding = name

    async def send(self) -> web.StreamResponse:
        """Send everything, beginning with what the run holds."""
        run = self._run
        if run.ended and not run.held:
            return web.Response(headers=self._headers(), status=200)
        if run.statement.wait_end:
            size = sum(map(len, run.held))
            while not run.ended and size <= HELD_BYTES_MAX:
                part = await self._more()
                if part:
                    run.held.append(part)
                    size += len(part)
        return await self._stream(run.held, None if run.ended else self._rest())

    async def _rest(self) -> AsyncIterator[bytes]:
        while (chunk := await self._more()) is not None:
            yield chunk

    async def _stream(
        self, held: Sequence[Part], rest: AsyncIterator[bytes] | None
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers=self._headers())
        encoder = encoding.encoder(self._encoding) if self._encoding else None
        if encoder:
            response.headers["Content-Encoding"] = self._encoding or ""
        elif rest is None:
            response.content_length = sum(map(len, held))
        await response.prepare(self._request)

        async def write(chunk: bytes) -> None:
            out = encoder.add(chunk) if encoder else chunk
            if out:
                await response.write(out)

        for part in held:
            for begin in range(0, len(part), SLICE_BYTES):
                # A copy: the transport may keep the slice longer than the engine its result.
                await write(bytes(part[begin : begin + SLICE_BYTES]))
        try:
            if rest is not None:
                async for chunk in rest:
                    await write(chunk)
        except ClickHouseError as error:
            await write(exception_block(error, self._tag, self._engine.version))
        if encoder:
            await response.write(encoder.end())
        await response.write_eof()
        return response

    def _headers(self) -> dict[str, str]:
        found = self._run.statement
        headers = {
            "X-ClickHouse-Query-Id": found.query_id,
            "X-ClickHouse-Timezone": self._engine.timezone,
            "X-ClickHouse-Server-Display-Name": "routekeel",
            "X-ClickHouse-Summary": self._run.progress.header(),
            EXCEPTION_TAG: self._tag,
            "Content-Type": "text/plain; charset=UTF-8",
        }
        if found.shape.first in _WITH_RESULT:
            headers["X-ClickHouse-Format"] = found.format
            headers["Content-Type"] = content_type(found.format)
        return headers
