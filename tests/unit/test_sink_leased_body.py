"""An insert that is stopped on its way is never whole: the lease is looked at before every block."""

from __future__ import annotations

import http.client
import socket
import threading
from contextlib import suppress
from typing import Any

import pytest

from routekeel.schemas.records import TELEMETRY
from routekeel.schemas.tables import tables_of
from routekeel.streams.settings import Settings
from routekeel.streams.sinks.actions import Insert, Payload
from routekeel.streams.sinks.lease import Lease, LeaseTerms
from routekeel.streams.sinks.leased_body import LeasedBody, LeaseLapsed
from routekeel.streams.sinks.outcomes import Failed
from routekeel.streams.sinks.store import TableStore
from routekeel.streams.topology.records import Source

BLOCK = 16_384
DATA = bytes(range(256)) * (3 * BLOCK // 256)


def received_of(body: LeasedBody) -> tuple[bytes, bool]:
    """Send a body over a real connection: what arrived of it, and whether sending was broken off."""
    server = socket.create_server(("127.0.0.1", 0))
    arrived: list[bytes] = []

    def take() -> None:
        connection, _ = server.accept()
        # Breaking off may reset the connection instead of ending it.
        with connection, suppress(ConnectionResetError):
            while block := connection.recv(65_536):
                arrived.append(block)
                if b"".join(arrived).endswith(DATA[-BLOCK:]):
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    thread = threading.Thread(target=take)
    thread.start()
    client = http.client.HTTPConnection("127.0.0.1", server.getsockname()[1], blocksize=BLOCK)
    broken = False
    try:
        client.request("POST", "/", body, {"Content-Length": str(len(DATA))})
        client.getresponse().read()
    except LeaseLapsed:
        broken = True
    finally:
        client.close()
        thread.join(10)
        server.close()
    return b"".join(arrived).partition(b"\r\n\r\n")[2], broken


def test_the_last_block_is_not_sent_when_the_lease_has_run_out() -> None:
    looks = iter([True, True, False])
    body, broken = received_of(LeasedBody(DATA, lambda: next(looks)))
    assert broken and body == DATA[: 2 * BLOCK]


def test_under_the_lease_everything_is_sent_and_the_end_asks_nobody() -> None:
    looks = iter([True, True, True])
    body, broken = received_of(LeasedBody(DATA, lambda: next(looks)))
    assert not broken and body == DATA


def test_the_last_byte_leaves_time_for_the_execution() -> None:
    terms = LeaseTerms.of(Settings())
    lease = Lease(terms)
    assert not lease.allows_last_byte(0.0)
    lease.prove(100.0)
    latest = 100.0 + terms.start_window_s + terms.transfer_s
    assert lease.allows_last_byte(latest) and not lease.allows_last_byte(latest + 0.01)
    assert latest + terms.execution_s < 100.0 + terms.session_s
    lease.drop()
    assert not lease.allows_last_byte(100.0)


@pytest.mark.parametrize("lapsed", [False, True])
def test_a_lapsed_insert_is_tried_again_and_known_not_to_be_done(lapsed: bool) -> None:
    class Client:
        def raw_insert(self, *arguments: Any, **more: Any) -> Any:
            assert arguments[2].read() == b"rows"
            raise OSError("no answer")

    table = tables_of(TELEMETRY)[0]
    action = Insert(table, "token", Payload(b"rows", 1), Source("telemetry", "id", 0), 5)
    store = TableStore(Client(), "db", LeaseTerms(10, 4, 2), may_send=lambda: not lapsed)  # type: ignore[arg-type]
    outcome = store.insert(action)
    assert isinstance(outcome, Failed)
    assert outcome.unknown is not lapsed
