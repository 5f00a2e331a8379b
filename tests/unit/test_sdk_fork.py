"""A fork: the child gets a client, an epoch and counts of its own; what was queued is sent once."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from tests.unit.mock_broker import MockKafka, decoded

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork"),
]

PROGRAM = """
import os, sys, threading, numpy as np
from routekeel.streams.sdk.producer import Producer
logits = np.ones((1, 2, 4), np.float16)
producer = Producer(bootstrap_servers=sys.argv[1], topic="forked", model="m", backend="b", top_k=2,
                    schema_id=1, options={"linger.ms": 400})
for n in range(5):
    assert producer.emit_logits("s", logits, position_start=n, task_type="parent")
if sys.argv[2] == "locked":  # another thread is inside the SDK at the moment of the fork
    held = threading.Thread(target=lambda: (producer._sender._lock.acquire(),
                                            producer._outbox._poll_lock.acquire()))
    held.start(); held.join()
child = os.fork()
if child == 0:
    stats = producer.stats()
    assert (stats.emitted, stats.in_flight, stats.sessions) == (0, 0, 0), stats
    for n in range(3):
        assert producer.emit_logits("s", logits, position_start=n, task_type="child")
    if sys.argv[2] == "closing":
        assert producer.close(10) == 0
    sys.exit(0)  # the whole way out: atexit, then the interpreter takes everything apart
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0, status
if sys.argv[2] == "locked":
    assert producer._outbox._client.flush(10) == 0
    os._exit(0)
assert producer.flush(10) == 0
assert producer.stats().delivered == 5
"""


@pytest.mark.parametrize("kind", ["closing", "leaving", "locked"])
def test_nothing_is_sent_twice(kind: str) -> None:
    kafka = MockKafka()
    try:
        program = textwrap.dedent(PROGRAM)
        subprocess.run([sys.executable, "-c", program, kafka.servers, kind], check=True, timeout=60)
        records = decoded(kafka.messages("forked", 8))
        for name, count in (("parent", 5), ("child", 3)):
            mine = [r for r in records if r["task_type"] == name]
            assert [r["sequence"] for r in mine] == list(range(count))
        assert len({r["producer_epoch"] for r in records}) == 2
    finally:
        kafka.close()
