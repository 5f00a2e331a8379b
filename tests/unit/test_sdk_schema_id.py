"""The schema id: asked for once, retried by a thread that ends, and never waited for by emit."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest

from routekeel.streams.sdk import schema_id as module
from routekeel.streams.sdk.producer import Producer
from routekeel.streams.sdk.schema_id import SchemaId
from tests.unit.mock_broker import closed_port, hanging_broker

pytestmark = pytest.mark.slow

LOGITS = np.zeros((1, 2, 4), np.float16)


class Answers:
    """A registry that gives its answers in turn."""

    def __init__(self, *answers: int | Exception) -> None:
        self.answers = list(answers)
        self.asked = 0

    def __call__(self) -> int:
        self.asked += 1
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def settle(schema: SchemaId) -> None:
    assert schema._asking is not None
    schema._asking.join(5)


def test_a_known_id_is_not_asked_for() -> None:
    answers = Answers()
    assert SchemaId(answers, 7).ask_now()
    assert answers.asked == 0


def test_retries_wait_longer_and_longer_and_end() -> None:
    now = [0.0]
    down = ConnectionError("refused")
    answers = Answers(down, down, down, 9)
    schema = SchemaId(answers, clock_s=lambda: now[0])
    assert not schema.ask_now()
    for waited, asked in ((0.9, 1), (1.1, 2), (2.9, 2), (3.2, 3), (7.0, 3), (7.3, 4)):
        now[0] = waited
        schema.ask_later()
        if schema._asking is not None:
            settle(schema)
        assert answers.asked == asked
    assert schema.value == 9
    assert not any(t.name == "routekeel-schema-id" for t in threading.enumerate())


def test_only_one_thread_asks_at_a_time() -> None:
    gate = threading.Event()

    def slow() -> int:
        gate.wait(5)
        return 3

    schema = SchemaId(slow)
    for _ in range(50):
        schema.ask_later()
    assert sum(t.name == "routekeel-schema-id" for t in threading.enumerate()) == 1
    gate.set()
    settle(schema)
    assert schema.value == 3


@pytest.fixture
def registry() -> Iterator[str]:
    """A registry that gives every schema the id 42."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = b'{"id": 42}'
            self.send_response(200)
            self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_registry_is_asked_at_construction(registry: str) -> None:
    with closed_port() as servers:
        producer = Producer(
            bootstrap_servers=servers, registry_url=registry, model="m", backend="b", top_k=1
        )
        assert producer.emit_logits("s", LOGITS, position_start=0)
        producer.close(0)


@pytest.mark.parametrize("kind", ["closed", "hanging"])
def test_without_a_registry_emit_drops_at_once(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUTEKEEL_REGISTRY__TIMEOUT_S", "0.3")
    monkeypatch.setattr(module, "RETRY_S_MIN", 0.01)
    with hanging_broker() if kind == "hanging" else closed_port() as address:
        started = time.monotonic()
        producer = Producer(
            bootstrap_servers=address,
            registry_url=f"http://{address}",
            model="m",
            backend="b",
            top_k=1,
        )
        assert time.monotonic() - started < 3
        longest = 0.0
        for step in range(200):
            began = time.perf_counter()
            assert not producer.emit_logits("s", LOGITS, position_start=step)
            longest = max(longest, time.perf_counter() - began)
        assert longest < 0.25
        assert producer.stats().dropped["schema_unavailable"] == 200
        assert not producer.wait_ready(0.1)
        producer.close(0)


def test_the_id_arrives_later_and_the_drops_are_reported() -> None:
    answers = Answers(ConnectionError("down"), 5)
    with closed_port() as servers:
        producer = Producer(bootstrap_servers=servers, schema_id=1, model="m", backend="b", top_k=1)
        schema = producer._schema
        schema.value, schema._ask = None, answers
        schema._clock_s = lambda: 1e9
        assert not producer.emit_logits("s", LOGITS, position_start=0)
        settle(schema)
        assert schema.value is None
        schema._next_s = 0
        assert not producer.emit_logits("s", LOGITS, position_start=1)
        settle(schema)
        assert producer.emit_logits("s", LOGITS, position_start=2)
        producer.close(0)
