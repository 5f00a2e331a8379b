"""An absent or hanging broker: emit returns at once, memory is bounded, every chunk counted."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from routekeel.streams.sdk.client import ThrottledLog, client_properties
from routekeel.streams.sdk.config import SdkConfig
from routekeel.streams.sdk.producer import Producer
from tests.unit.mock_broker import closed_port, hanging_broker

pytestmark = pytest.mark.slow

LOGITS = np.ones((1, 16, 64), np.float16)
BUFFER = 2**18


@pytest.fixture(params=["absent", "hanging"])
def servers(request: pytest.FixtureRequest) -> Iterator[str]:
    with closed_port() if request.param == "absent" else hanging_broker() as address:
        yield address


def make(servers: str, **more: Any) -> Producer:
    defaults = {"model": "m", "backend": "b", "top_k": 2, "schema_id": 1, "buffer_bytes": BUFFER}
    return Producer(bootstrap_servers=servers, **{**defaults, **more})


def emit(producer: Producer, count: int) -> int:
    return sum(producer.emit_logits("s", LOGITS, position_start=n) for n in range(count))


def test_the_buffer_is_bounded_and_the_counts_are_exact(servers: str) -> None:
    producer = make(servers)
    accepted = emit(producer, 2000)
    stats = producer.stats()
    assert 0 < stats.in_flight_bytes <= BUFFER
    assert BUFFER - stats.in_flight_bytes < LOGITS.nbytes + 1024
    assert (stats.accepted, stats.in_flight) == (accepted, accepted)
    assert stats.dropped["buffer_full"] == 2000 - accepted
    assert stats.emitted == 2000 == stats.delivered + stats.dropped_total + stats.in_flight
    assert producer.flush(0.1) == accepted
    assert producer.close(0.1) == accepted
    stats = producer.stats()
    assert (stats.in_flight, stats.in_flight_bytes) == (0, 0)
    assert stats.dropped["delivery_failed"] == accepted
    assert stats.emitted == stats.delivered + stats.dropped_total


def test_librdkafkas_memory_stays_within_twice_the_budget(servers: str) -> None:
    """100,000 chunks that nobody takes: what the process holds afterwards is the budget's size."""
    code = (
        "import sys, numpy as np, psutil\n"
        "from routekeel.streams.sdk.producer import Producer\n"
        "p = Producer(bootstrap_servers=sys.argv[1], model='m', backend='b', top_k=2, schema_id=1,"
        " buffer_bytes=16 * 2**20)\n"
        "small = np.ones((1, 1, 8), np.float16)\n"
        "p.emit_logits('s', small, position_start=0)\n"
        "before = psutil.Process().memory_info().rss\n"
        "for n in range(100_000): p.emit_logits('s', small, position_start=n)\n"
        "print(psutil.Process().memory_info().rss - before)\n"
        "p.close(0)\n"
    )
    run = subprocess.run([sys.executable, "-c", code, servers], capture_output=True, check=True)
    assert int(run.stdout) < 2 * 16 * 2**20


def test_expired_chunks_make_room_and_are_reported(servers: str) -> None:
    producer = make(servers, options={"message.timeout.ms": 300, "linger.ms": 1})
    first = emit(producer, 1000)
    deadline = time.monotonic() + 10
    while producer.stats().in_flight and time.monotonic() < deadline:
        time.sleep(0.05)
    stats = producer.stats()
    assert stats.dropped["delivery_failed"] == first
    session = producer._sender._sessions.get("s")
    assert session is not None
    assert session.dropped == 1000, "refused and failed ones travel with the next"
    assert emit(producer, 1) == 1
    producer.close(0)


def test_no_call_waits(servers: str) -> None:
    producer = make(servers)
    times = []
    for n in range(3000):
        began = time.perf_counter()
        producer.emit_logits("s", LOGITS, position_start=n)
        times.append(time.perf_counter() - began)
    assert sorted(times)[len(times) // 2] < 0.001
    assert max(times) < 0.5
    producer.close(0)


def test_leaving_the_process_is_bounded(servers: str) -> None:
    code = (
        "import sys, numpy as np\n"
        "from routekeel.streams.sdk.producer import Producer\n"
        "p = Producer(bootstrap_servers=sys.argv[1], model='m', backend='b', top_k=2,"
        " schema_id=1)\n"
        "assert p.emit_logits('s', np.ones((1, 2, 4), np.float16), position_start=0)\n"
    )
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", code, servers], check=True, env=os.environ, timeout=30)
    assert time.monotonic() - began < 15


def test_room_is_waited_for_in_vain_no_longer_than_asked(servers: str) -> None:
    producer = make(servers)
    emit(producer, 1000)
    began = time.monotonic()
    assert not producer.wait_for_room(LOGITS.nbytes, 0.5)
    assert 0.4 < time.monotonic() - began < 5
    producer.close(0)


def test_kafkas_log_lines_are_throttled(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    log = ThrottledLog(lambda: now[0])
    for second in range(125):
        now[0] = float(second)
        log.log(40, "%s [%s] %s", "FAIL", "client", "100% refused")
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        "FAIL [client] 100% refused",
        "FAIL [client] 100% refused (59 lines were held back)",
        "FAIL [client] 100% refused (59 lines were held back)",
    ]


def test_the_bounds_of_the_client_follow_the_budget() -> None:
    properties = client_properties(SdkConfig(buffer_bytes=2**20))
    assert properties["queue.buffering.max.kbytes"] == 2048
    assert properties["queue.buffering.max.messages"] == 2**20 // 256 + 1
    assert properties["enable.idempotence"] is True
    assert properties["message.max.bytes"] == 16 * 2**20
