"""The registry's REST interface: the subset of Confluent's that its clients use.

Handlers read the state directly; whatever writes holds the store's lock from the first check to
the applied record, so that two registrations at once get the same answer.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from aiohttp import web

from routekeel.infra.local.registry import faults
from routekeel.infra.local.registry.schema import parsed
from routekeel.infra.local.registry.state import LEVELS, Version, differences
from routekeel.infra.local.registry.store import Store

MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"
BODY_BYTES_MAX = 16 * 1024 * 1024
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def answer(value: object, status: int = 200) -> web.Response:
    """A JSON reply in the registry's media type."""
    return web.Response(text=json.dumps(value), status=status, content_type=MEDIA_TYPE)


@web.middleware
async def faults_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every refusal, the HTTP layer's too, as {"error_code", "message"}."""
    try:
        return await handler(request)
    except faults.RegistryError as fault:
        return answer({"error_code": fault.code, "message": fault.message}, fault.status)
    except web.HTTPException as error:
        return answer({"error_code": error.status, "message": f"HTTP {error.reason}"}, error.status)


async def body_of(request: web.Request) -> dict[str, Any]:
    """The request's JSON object. Raises RegistryError (42201)."""
    try:
        value = json.loads(await request.text())
    except ValueError as error:
        raise faults.invalid_schema(f"the body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise faults.invalid_schema("the body is not a JSON object")
    return value


def flag(request: web.Request, name: str) -> bool:
    """A boolean URL parameter."""
    return request.query.get(name, "false").lower() == "true"


class Registry:
    """The handlers over one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(middlewares=[faults_as_json], client_max_size=BODY_BYTES_MAX)
        subject, version = "/subjects/{subject}", "/subjects/{subject}/versions/{version}"
        app.add_routes(
            [
                web.get("/", self._root),
                web.get("/schemas/types", self._types),
                web.get("/schemas/ids/{id}", self._schema),
                web.get("/schemas/ids/{id}/schema", self._schema_text),
                web.get("/schemas/ids/{id}/subjects", self._holding_subjects),
                web.get("/schemas/ids/{id}/versions", self._holding_versions),
                web.get("/subjects", self._subjects),
                web.post(subject, self._lookup),
                web.delete(subject, self._delete_subject),
                web.get(subject + "/versions", self._versions),
                web.post(subject + "/versions", self._register),
                web.get(version, self._version),
                web.get(version + "/schema", self._version_text),
                web.delete(version, self._delete_version),
                web.get("/config", self._level),
                web.put("/config", self._set_level),
                web.get("/config/{subject}", self._level),
                web.put("/config/{subject}", self._set_level),
                web.post("/compatibility/subjects/{subject}/versions", self._test),
                web.post("/compatibility/subjects/{subject}/versions/{version}", self._test),
            ]
        )
        return app

    async def _root(self, _: web.Request) -> web.Response:
        return answer({})

    async def _types(self, _: web.Request) -> web.Response:
        return answer(["AVRO"])

    async def _schema(self, request: web.Request) -> web.Response:
        return answer({"schema": self._store.state.text(_id(request)), "schemaType": "AVRO"})

    async def _schema_text(self, request: web.Request) -> web.Response:
        return answer(json.loads(self._store.state.text(_id(request))))

    async def _holding_subjects(self, request: web.Request) -> web.Response:
        found = self._store.state.holders(_id(request), flag(request, "deleted"))
        return answer(sorted({version.subject for version in found}))

    async def _holding_versions(self, request: web.Request) -> web.Response:
        found = self._store.state.holders(_id(request), flag(request, "deleted"))
        return answer([{"subject": v.subject, "version": v.number} for v in found])

    async def _subjects(self, request: web.Request) -> web.Response:
        prefix = request.query.get("subjectPrefix", "")
        names = self._store.state.subjects(flag(request, "deleted"))
        return answer([name for name in names if name.startswith(prefix)])

    async def _versions(self, request: web.Request) -> web.Response:
        found = self._store.state.versions(_subject(request), flag(request, "deleted"))
        return answer([version.number for version in found])

    async def _version(self, request: web.Request) -> web.Response:
        return answer(self._find(request).answer())

    async def _version_text(self, request: web.Request) -> web.Response:
        return answer(json.loads(self._find(request).text))

    def _find(self, request: web.Request) -> Version:
        wanted = request.match_info["version"]
        return self._store.state.version(_subject(request), wanted, flag(request, "deleted"))

    async def _lookup(self, request: web.Request) -> web.Response:
        schema, _ = await _schema_in(request)
        found = self._store.state.lookup(_subject(request), schema, flag(request, "deleted"))
        return answer(found.answer())

    async def _register(self, request: web.Request) -> web.Response:
        subject = _subject(request)
        schema, text = await _schema_in(request)
        async with self._store.writing:
            state = self._store.state
            try:
                made = state.lookup(subject, schema)
            except faults.RegistryError:
                reasons = state.reasons_against(subject, schema)
                if reasons:
                    raise faults.incompatible(subject, reasons) from None
                made = state.next_version(subject, schema, text)
                await self._store.put_version(made)
        return answer(made.answer())

    async def _delete_subject(self, request: web.Request) -> web.Response:
        subject = _refuse_permanent(request)
        async with self._store.writing:
            found = self._store.state.versions(subject)
            for version in found:
                await self._store.put_version(replace(version, deleted=True))
        return answer([version.number for version in found])

    async def _delete_version(self, request: web.Request) -> web.Response:
        subject = _refuse_permanent(request)
        async with self._store.writing:
            version = self._store.state.version(subject, request.match_info["version"])
            await self._store.put_version(replace(version, deleted=True))
        return answer(version.number)

    async def _level(self, request: web.Request) -> web.Response:
        subject = request.match_info.get("subject")
        fallback = flag(request, "defaultToGlobal")
        return answer({"compatibilityLevel": self._store.state.level(subject, fallback)})

    async def _set_level(self, request: web.Request) -> web.Response:
        level = (await body_of(request)).get("compatibility")
        if level not in LEVELS:
            raise faults.invalid_level(level)
        async with self._store.writing:
            await self._store.put_level(request.match_info.get("subject"), level)
        return answer({"compatibility": level})

    async def _test(self, request: web.Request) -> web.Response:
        subject = _subject(request)
        schema, _ = await _schema_in(request)
        state = self._store.state
        wanted = request.match_info.get("version")
        if wanted is None:
            state.versions(subject)
            reasons = state.reasons_against(subject, schema)
        else:
            earlier = state.version(subject, wanted)
            reasons = differences(state.level(subject), schema, earlier)
        verdict: dict[str, Any] = {"is_compatible": not reasons}
        return answer(verdict | ({"messages": reasons} if flag(request, "verbose") else {}))


def _id(request: web.Request) -> int:
    text = request.match_info["id"]
    if not text.isdecimal():
        raise faults.no_schema()
    return int(text)


def _subject(request: web.Request) -> str:
    return request.match_info["subject"]


async def _schema_in(request: web.Request) -> tuple[Any, str]:
    body = await body_of(request)
    schema = parsed(body.get("schema"), body.get("schemaType"), body.get("references"))
    return schema, str(body["schema"])


def _refuse_permanent(request: web.Request) -> str:
    if flag(request, "permanent"):
        raise faults.not_permitted("versions are only ever marked deleted here")
    return _subject(request)
