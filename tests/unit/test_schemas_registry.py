"""Schema ids: the fixed and the registry's obey the same laws; the registry's faults are told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from routekeel.schemas import codec
from routekeel.schemas import registry as registry_module
from routekeel.schemas.avro import schema
from routekeel.schemas.codec import Decoder, Encoder
from routekeel.schemas.errors import RegistryUnavailable, SchemaRefused, UnknownSchemaId
from routekeel.schemas.records import TELEMETRY, WEIGHTS
from routekeel.schemas.registry import FixedSchemaIds, SchemaIds, SchemaRegistry, subject_of
from tests.golden.examples import example

Reply = tuple[int, Any]


class Server(ThreadingHTTPServer):
    """The part of a registry that the client needs; `fault` replaces every answer."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.texts: list[str] = []
        self.requests: list[str] = []
        self.fault: Reply | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def reply(self, path: str, body: Any) -> Reply:
        self.requests.append(path)
        if self.fault:
            return self.fault
        if body is not None:
            if body["schema"] not in self.texts:
                self.texts.append(body["schema"])
            return 200, {"id": self.texts.index(body["schema"]) + 1}
        schema_id = int(path.partition("?")[0].rsplit("/", 1)[1])
        if schema_id > len(self.texts):
            return 404, {"error_code": 40403, "message": f"Schema {schema_id} not found"}
        return 200, {"schema": self.texts[schema_id - 1]}


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self._answer(None)

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _answer(self, body: Any) -> None:
        status, answer = self.server.reply(self.path, body)
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(params=["fixed", "http"])
def ids(request: pytest.FixtureRequest) -> SchemaRegistry:
    if request.param == "fixed":
        return FixedSchemaIds()
    return SchemaIds(request.getfixturevalue("server").url, retries=0)


def test_a_schema_has_one_id_under_every_subject(ids: SchemaRegistry) -> None:
    first = ids.register(TELEMETRY, subject_of("a"))
    assert first >= 1
    assert ids.register(TELEMETRY, subject_of("a")) == first
    assert ids.register(TELEMETRY, subject_of("b")) == first
    assert ids.register(WEIGHTS, subject_of("a")) != first


def test_a_registered_schema_is_found_by_its_id(ids: SchemaRegistry) -> None:
    assert ids.writer(ids.register(WEIGHTS, "w-value")) == schema(WEIGHTS)


@pytest.mark.parametrize("schema_id", [77, 0, -5, 2**31 - 1])
def test_an_unknown_id_is_final(ids: SchemaRegistry, schema_id: int) -> None:
    with pytest.raises(UnknownSchemaId):
        ids.writer(schema_id)


def test_what_one_side_encodes_the_other_decodes(ids: SchemaRegistry) -> None:
    value = example(WEIGHTS)
    data = Encoder(WEIGHTS, ids.register(WEIGHTS, "w-value")).encode(value)
    assert Decoder(WEIGHTS, ids).decode(data) == value


def test_every_answer_is_asked_for_once(server: Server) -> None:
    server.texts.append(json.dumps(schema(WEIGHTS)))
    ids = SchemaIds(server.url, retries=0)
    for _ in range(3):
        assert ids.writer(1) == schema(WEIGHTS)
        ids.register(TELEMETRY, "t-value")
    assert len(server.requests) == 2


def test_an_unknown_id_is_remembered_for_a_while_only(server: Server) -> None:
    now = [0.0]
    ids = SchemaIds(server.url, retries=0, unknown_ttl_s=30, clock=lambda: now[0])
    for _ in range(5):
        with pytest.raises(UnknownSchemaId):
            ids.writer(1)
    assert len(server.requests) == 1
    server.texts.append(json.dumps(schema(WEIGHTS)))
    now[0] = 31.0
    assert ids.writer(1) == schema(WEIGHTS)


@pytest.mark.parametrize(
    "fault",
    [
        (500, {"error_code": 50001, "message": "store"}),
        (503, b"<html>"),
        (401, {"error_code": 40101, "message": "who are you"}),
        (404, b"no such page"),
        (404, {"error_code": 404, "message": "HTTP 404 Not Found"}),
        (200, b"not json"),
    ],
)
@pytest.mark.parametrize("call", ["writer", "register"])
def test_anything_but_the_registrys_verdict_is_unavailable(
    server: Server, fault: Reply, call: str
) -> None:
    ids = SchemaIds(server.url, retries=0)
    server.fault = fault
    calls: dict[str, Callable[[], object]] = {
        "writer": lambda: ids.writer(1),
        "register": lambda: ids.register(WEIGHTS, "w"),
    }
    with pytest.raises(RegistryUnavailable, match=r"127\.0\.0\.1"):
        calls[call]()
    server.fault = None
    assert ids.register(WEIGHTS, "w") == 1
    assert ids.writer(1) == schema(WEIGHTS)


def test_nobody_there_is_unavailable(server: Server) -> None:
    ids = SchemaIds("http://127.0.0.1:9", retries=0, timeout_s=1)
    with pytest.raises(RegistryUnavailable):
        ids.writer(1)


def test_an_incompatible_schema_is_refused(server: Server) -> None:
    ids = SchemaIds(server.url, retries=0)
    server.fault = (409, {"error_code": 409, "message": "incompatible with an earlier schema"})
    with pytest.raises(SchemaRefused, match="incompatible"):
        ids.register(WEIGHTS, "w")


def test_a_schema_that_is_no_json_is_an_unknown_one(server: Server) -> None:
    server.texts.append("{")
    with pytest.raises(UnknownSchemaId):
        SchemaIds(server.url, retries=0).writer(1)


def test_a_schema_that_is_no_avro_record_is_refused_by_the_decoder(server: Server) -> None:
    server.texts.append('"string"')
    from routekeel.schemas.errors import WrongRecord

    with pytest.raises(WrongRecord):
        Decoder(WEIGHTS, SchemaIds(server.url, retries=0)).decode(b"\0\0\0\0\1x")


def test_answers_and_plans_are_bounded(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "SCHEMAS_KEPT_MAX", 3)
    monkeypatch.setattr(codec, "PLANS_KEPT_MAX", 2)
    ids = SchemaIds(server.url, retries=0)
    value = example(WEIGHTS)
    framed = Encoder(WEIGHTS, ids.register(WEIGHTS, "w")).encode(value)
    decoder = Decoder(WEIGHTS, ids)
    versions = []
    for number in range(8):
        older = json.loads(json.dumps(schema(WEIGHTS)))
        older["doc"] = f"version {number}"
        server.texts.append(json.dumps(older))
        versions.append(len(server.texts))
    for schema_id in versions:
        decoder.decode(b"\0" + schema_id.to_bytes(4, "big") + framed[5:])
        assert len(ids._schemas) <= 3
        assert len(decoder._plans) <= 2
    assert decoder.decode(framed) == decoder.decode(framed)
