"""A registry and a ClickHouse behind a CA of one's own: trusted where it is set, refused where not."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from routekeel.schemas.errors import RegistryUnavailable
from routekeel.schemas.records import TELEMETRY
from routekeel.streams.errors import ServiceUnavailable
from routekeel.streams.history.store import connect
from routekeel.streams.registry import registry_of
from routekeel.streams.settings import Settings, load_settings
from tests.unit.certificates import own_certificate


class Answer(BaseHTTPRequestHandler):
    """Answers every request as a registry would; remembers the paths."""

    paths: list[str] = []  # noqa: RUF012

    def do_POST(self) -> None:
        self.paths.append(self.path)
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = json.dumps({"id": 7}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.do_POST()

    def log_message(self, *_: Any) -> None: ...


class Server(ThreadingHTTPServer):
    """Says nothing of a client that hangs up: that is what one without the CA does."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None: ...


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    ca, key = own_certificate(tmp_path_factory.mktemp("ca"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ca, key)
    served = Server(("127.0.0.1", 0), Answer)
    served.socket = context.wrap_socket(
        served.socket, server_side=True, do_handshake_on_connect=False
    )
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    yield served.server_address[1], ca
    served.shutdown()
    served.server_close()
    thread.join(5)


@pytest.fixture(autouse=True)
def no_paths() -> None:
    Answer.paths.clear()


def settings_for(port: int, **values: Any) -> Settings:
    chosen = {name.replace("__", "."): value for name, value in values.items()}
    chosen |= {"registry.url": f"https://127.0.0.1:{port}", "clickhouse.host": "127.0.0.1"}
    chosen |= {"clickhouse.port": port, "clickhouse.secure": True}
    return load_settings(None, chosen, {}).settings


def test_the_registry_is_checked_with_the_ca_of_the_settings(server: tuple[int, Path]) -> None:
    port, ca = server
    trusting = registry_of(settings_for(port, kafka__ssl_ca_file=str(ca)), retries=0)
    assert trusting.register(TELEMETRY, "t-value") == 7
    assert Answer.paths
    Answer.paths.clear()
    with pytest.raises(RegistryUnavailable, match=r"(?i)certificate"):
        registry_of(settings_for(port), retries=0).register(TELEMETRY, "t-value")
    assert not Answer.paths


def test_clickhouse_is_checked_with_the_ca_of_the_settings(server: tuple[int, Path]) -> None:
    port, ca = server
    with pytest.raises(ServiceUnavailable, match=r"(?i)certificate"):
        connect(settings_for(port).clickhouse)
    assert not Answer.paths
    trusting = settings_for(port, clickhouse__ssl_ca_file=str(ca)).clickhouse
    # What answers there is no ClickHouse, but it was asked: its certificate was good.
    with pytest.raises(Exception):  # noqa: B017
        connect(trusting)
    assert Answer.paths
