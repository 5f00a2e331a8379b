"""A worker and a sink whose time of day is wrong: nothing is refused, and no time of theirs is in a log."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from routekeel.streams.history.store import connect
from routekeel.streams.topics import admin_client
from tests.chaos.clocks import Clocks, ClocksMissing
from tests.stack.exactness import assert_outputs_exact, expected
from tests.stack.system import WAIT_S, MakeSystem, read_topic
from tests.stack.test_worker_running import send

pytestmark = pytest.mark.stack
NEAR_S = 600
WAITS = """
import ctypes, sys, time
libc = ctypes.CDLL(None)
one, mutex, condition = (ctypes.create_string_buffer(128) for _ in range(3))  # zeros: as made statically
libc.sem_init(one, 0, 0)
libc.pthread_mutex_lock(mutex)

class Time(ctypes.Structure):
    _fields_ = [("s", ctypes.c_long), ("ns", ctypes.c_long)]

def at(deadline):
    return ctypes.byref(Time(int(deadline), int(deadline % 1 * 1e9)))

for _ in sys.stdin:
    waited = []
    for wait in (libc.sem_timedwait, libc.pthread_cond_timedwait):
        objects = (one,) if wait is libc.sem_timedwait else (condition, mutex)
        began = time.monotonic()
        wait(*objects, at(time.time() + 0.2))
        waited.append(time.monotonic() - began)
    print(time.time(), *waited, flush=True)
"""
"""Says what the time is, and how long two waits took until a time of day 0.2 s on."""


@pytest.fixture(scope="module")
def clocks(tmp_path_factory: pytest.TempPathFactory) -> Clocks:
    """Clocks that can be set."""
    try:
        return Clocks(tmp_path_factory.mktemp("clocks"))
    except ClocksMissing as error:
        pytest.skip(str(error))


def test_a_clock_steps_while_a_process_runs_and_its_waits_keep_their_length(
    clocks: Clocks,
) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", WAITS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | clocks.environment("child"),
    )
    assert child.stdin and child.stdout
    for offset_s in (0.0, 7_200.0, -172_800.25, 0.0):
        clocks.set("child", offset_s)
        child.stdin.write("\n")
        child.stdin.flush()
        seen_s, *waited_s = map(float, child.stdout.readline().split())
        assert abs(seen_s - time.time() - offset_s) < 30
        assert len(waited_s) == 2 and all(0.1 <= each < 30 for each in waited_s)
    child.stdin.close()
    assert child.wait(30) == 0


@pytest.mark.parametrize(("name", "offset_s"), [("ahead", 10_800.0), ("behind", -864_000.0)])
def test_outputs_and_rows_bear_the_brokers_time_whatever_the_workers_is(
    system: MakeSystem, clocks: Clocks, name: str, offset_s: float
) -> None:
    """Kafka refuses a record an hour ahead of its own clock and deletes one older than the retention."""
    running = system(f"clock-{name}")
    settings = running.prepare()
    sent = send(settings, seed=1)
    clocks.set(name, offset_s)
    running.environment = clocks.environment(name)
    assert running.run("worker", "--until-idle", "2") == 0
    assert running.run("sink", "--until-idle", "2") == 0
    assert_outputs_exact(settings, expected(settings))
    for topic in (settings.topics.telemetry, settings.topics.weights):
        times = [message.timestamp()[1] / 1000 for message in read_topic(settings, topic)]
        assert times and max(abs(at - time.time()) for at in times) < NEAR_S
    table = f"{settings.clickhouse.database}.telemetry"
    query = f"SELECT count(), min(log_time), max(log_time) FROM {table}"
    rows, first, last = connect(settings.clickhouse).query(query).first_row
    assert rows >= sent
    assert max(abs(at.timestamp() - time.time()) for at in (first, last)) < NEAR_S


def test_a_topic_that_takes_its_writers_time_is_named_as_the_trouble_and_mended(
    system: MakeSystem, clocks: Clocks
) -> None:
    running = system("clock-of-writers")
    settings = running.prepare()
    send(settings, seed=1)
    entry = ConfigEntry(
        "message.timestamp.type", "CreateTime", incremental_operation=AlterConfigOpType.SET
    )
    resource = ConfigResource(
        ResourceType.TOPIC, settings.topics.telemetry, incremental_configs=[entry]
    )
    admin = admin_client(settings)  # held on to: without its owner no answer would come
    for future in admin.incremental_alter_configs([resource]).values():
        future.result()
    clocks.set("writer", 10_800)
    running.environment = clocks.environment("writer")
    worker = running.start("worker", "--until-idle", "2")
    assert worker.wait(WAIT_S) == 1
    assert "run `routekeel topics`" in " ".join(running.log_of(worker).split())
    assert running.run("topics") == 0
    assert running.run("worker", "--until-idle", "2") == 0
    assert_outputs_exact(settings, expected(settings))
