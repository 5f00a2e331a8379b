"""The whole stack: up, down and up again with the same data; killed, stopped, and twice at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import clickhouse_connect
import psutil
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from routekeel.infra.local.ports import any_free
from routekeel.infra.local.stack import (
    Endpoints,
    LocalStack,
    ServiceStatus,
    StackConfig,
    StackError,
)

pytestmark = [pytest.mark.stack, pytest.mark.slow]


def connect(endpoints: Endpoints) -> Any:
    return clickhouse_connect.get_client(
        host=endpoints.clickhouse_host,
        port=endpoints.clickhouse_port,
        username=endpoints.clickhouse_username,
        password=endpoints.clickhouse_password,
        database=endpoints.clickhouse_database,
    )


def status_of(stack: LocalStack, name: str) -> ServiceStatus:
    return next(status for status in stack.status() if status.name == name)


def pid_of(stack: LocalStack, name: str) -> int:
    pid = status_of(stack, name).pid
    assert pid is not None
    return pid


def produce(endpoints: Endpoints, topic: str, values: list[bytes]) -> None:
    admin = AdminClient({"bootstrap.servers": endpoints.kafka_bootstrap})
    admin.create_topics([NewTopic(topic, num_partitions=1)])[topic].result(10)
    producer = Producer({"bootstrap.servers": endpoints.kafka_bootstrap})
    for value in values:
        producer.produce(topic, value)
    assert producer.flush(20) == 0


def consume(endpoints: Endpoints, topic: str, count: int) -> list[bytes]:
    consumer = Consumer({"bootstrap.servers": endpoints.kafka_bootstrap, "group.id": "test"})
    consumer.assign([TopicPartition(topic, 0, 0)])
    found: list[bytes] = []
    deadline = time.monotonic() + 20
    while len(found) < count and time.monotonic() < deadline:
        found += [m.value() for m in consumer.consume(count, 1.0) if m.error() is None]
    consumer.close()
    return found


def test_it_is_up_and_says_so(local_stack: LocalStack) -> None:
    events: list[tuple[str, str, str]] = []
    endpoints = local_stack.up(on_event=lambda *event: events.append(event))
    assert [phase for _, phase, _ in events] == ["running"] * 3
    assert local_stack.endpoints() == endpoints
    for status in local_stack.status():
        assert (status.health, status.host) == ("healthy", "127.0.0.1")
        assert status.pid is not None
        assert status.log.is_file()
        assert (status.age_s or 0) > 0 < (status.rss_mb or 0)
        process = psutil.Process(status.pid)
        assert os.getsid(status.pid) == status.pid
        addresses = [c.laddr.ip for c in process.net_connections() if c.status == "LISTEN"]
        assert addresses
        assert {a.removeprefix("::ffff:") for a in addresses} == {"127.0.0.1"}


def test_the_password_is_nowhere_but_in_its_file(local_stack: LocalStack) -> None:
    password = local_stack.up().clickhouse_password
    state = local_stack.config.state_dir
    holders = [
        path.name
        for path in state.rglob("*")
        if path.is_file() and path.stat().st_size < 10**7 and password.encode() in path.read_bytes()
    ]
    assert holders == ["clickhouse_password"]
    for status in local_stack.status():
        assert password not in " ".join(psutil.Process(status.pid).cmdline())


def test_data_are_the_same_after_down_and_up(local_stack: LocalStack) -> None:
    endpoints = local_stack.up()
    produce(endpoints, "kept", [b"one", b"two"])
    client = connect(endpoints)
    client.command("CREATE TABLE kept (a UInt64) ENGINE = MergeTree ORDER BY a")
    client.insert("kept", [[1], [2]], column_names=["a"])
    stopped = local_stack.down()
    assert [s.health for s in stopped] == ["stopped"] * 3
    assert local_stack.endpoints() is None
    again = local_stack.up()
    assert again == endpoints
    assert consume(again, "kept", 2) == [b"one", b"two"]
    assert connect(again).query("SELECT a FROM kept ORDER BY a").result_rows == [(1,), (2,)]


@pytest.mark.parametrize("service", ["clickhouse", "kafka"])
def test_data_are_the_same_after_a_kill(local_stack: LocalStack, service: str) -> None:
    endpoints = local_stack.up()
    topic = table = f"killed_{service}"
    produce(endpoints, topic, [b"%d" % number for number in range(1000)])
    client = connect(endpoints)
    client.command(
        f"CREATE TABLE {table} (a UInt64) ENGINE = MergeTree ORDER BY a "
        "SETTINGS non_replicated_deduplication_window = 100"
    )
    settings = {"insert_deduplication_token": "t", "async_insert": 0}
    client.insert(table, [[n] for n in range(1000)], column_names=["a"], settings=settings)
    os.kill(pid_of(local_stack, service), signal.SIGKILL)
    while status_of(local_stack, service).health != "stopped":
        pass
    assert "unexpectedly" in status_of(local_stack, service).detail
    again = local_stack.up()
    assert len(consume(again, topic, 1000)) == 1000
    client = connect(again)
    client.insert(table, [[n] for n in range(1000)], column_names=["a"], settings=settings)
    assert client.command(f"SELECT count() FROM {table}") == 1000  # the token is remembered too


def test_a_stopped_process_is_unhealthy_and_replaced(
    local_stack: LocalStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("routekeel.infra.local.launch.HUNG_WAIT_S", 1.0)
    monkeypatch.setattr("routekeel.infra.local.launch.HEALTH_TIMEOUT_S", 1.0)
    local_stack.up()
    pid = pid_of(local_stack, "registry")
    os.kill(pid, signal.SIGSTOP)
    assert status_of(local_stack, "registry").health in ("starting", "unhealthy")
    stack = LocalStack(
        StackConfig(**{**vars(local_stack.config), "stop_timeout_s": 1.0})  # it cannot obey
    )
    stack.up()
    assert not psutil.pid_exists(pid)
    assert status_of(local_stack, "registry").health == "healthy"


def test_an_insert_is_finished_when_the_gateway_ends(local_stack: LocalStack) -> None:
    client = connect(local_stack.up())
    client.command("CREATE TABLE slow (a UInt64, b UInt8) ENGINE = MergeTree ORDER BY a")
    insert = "INSERT INTO slow SELECT number, sleepEachRow(0.02) FROM numbers(100)"
    outcome: list[object] = []
    thread = threading.Thread(target=lambda: outcome.append(client.command(insert)))
    thread.start()
    other = connect(local_stack.up())
    while other.command("SELECT count() FROM system.processes WHERE query LIKE 'INSERT%'") == 0:
        pass
    local_stack.down()
    thread.join()
    assert len(outcome) == 1
    assert connect(local_stack.up()).command("SELECT count() FROM slow") == 100


def test_two_starts_at_once_make_one_stack(local_stack: LocalStack) -> None:
    local_stack.down()
    other = LocalStack(local_stack.config)
    results: list[Endpoints] = []
    threads = [
        threading.Thread(target=lambda stack=stack: results.append(stack.up()))  # type: ignore[misc]
        for stack in (local_stack, other)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results[0] == results[1]
    assert len({pid_of(local_stack, s) for s in ("kafka", "registry", "clickhouse")}) == 3


def test_another_stack_beside_it_moves_aside(local_stack: LocalStack, tmp_path: Path) -> None:
    first = local_stack.up()
    config = StackConfig(
        state_dir=tmp_path / "odd, näme",
        kafka_port=any_free(),
        registry_port=any_free(),
        clickhouse_port=first.clickhouse_port,
        clickhouse_memory_mb=1024,
    )
    events: list[tuple[str, str, str]] = []
    beside = LocalStack(config)
    try:
        second = beside.up(("clickhouse",), lambda *event: events.append(event))
        assert second.clickhouse_port != first.clickhouse_port
        assert any("is taken; using" in detail for _, _, detail in events)
        assert beside.endpoints() == second
        assert connect(second).command("SELECT 1") == 1
        assert [s.health for s in beside.status()] == ["stopped", "stopped", "healthy"]
        assert second.clickhouse_password != first.clickhouse_password
    finally:
        beside.wipe()
    assert not config.state_dir.exists()
    assert local_stack.endpoints() == first


def test_ctrl_c_in_the_terminal_does_not_reach_the_services(
    local_stack: LocalStack, tmp_path: Path
) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from routekeel.infra.local.stack import LocalStack, StackConfig\n"
        f"config = StackConfig(state_dir=Path({str(tmp_path / 's')!r}), "
        f"clickhouse_port={any_free()}, clickhouse_memory_mb=1024)\n"
        "LocalStack(config).up(('clickhouse',)); print('up', flush=True); sys.stdin.read()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "up\n"
    os.killpg(child.pid, signal.SIGINT)
    child.communicate(timeout=20)
    stack = LocalStack(StackConfig(state_dir=tmp_path / "s"))
    try:
        assert status_of(stack, "clickhouse").health == "healthy"
    finally:
        stack.wipe()


def test_a_broken_data_folder_is_explained(tmp_path: Path) -> None:
    state = tmp_path / "s"
    state.mkdir()
    (state / "clickhouse").mkdir()
    (state / "clickhouse" / "data").write_text("not a folder")
    stack = LocalStack(StackConfig(state_dir=state, clickhouse_port=any_free()))
    with pytest.raises(StackError, match="clickhouse ended while starting") as caught:
        stack.up(("clickhouse",))
    assert "clickhouse.log" in caught.value.hint
    assert [s.pid for s in stack.status()] == [None, None, None]


def test_a_broker_that_cannot_start_is_explained(tmp_path: Path) -> None:
    config = StackConfig(
        state_dir=tmp_path / "s",
        kafka_port=any_free(),
        clickhouse_port=any_free(),
        kafka_heap_mb=1,  # too small for any Java
        clickhouse_memory_mb=1024,
    )
    stack = LocalStack(config)
    with pytest.raises(StackError, match="kafka ended while starting") as caught:
        stack.up(("kafka", "clickhouse"))
    assert "heap" in caught.value.message
    assert [s.pid for s in stack.status()] == [None, None, None]
    stack.wipe()
