"""Services that are away, slow or come back, ports that are taken, folders that cannot be written."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner

from routekeel.infra.local.stack import LocalStack
from routekeel.streams.cli.main import app
from routekeel.streams.errors import ServiceUnavailable
from routekeel.streams.history.audit import audit
from routekeel.streams.log_bounds import log_bounds
from routekeel.streams.sinks.lease import LeaseTerms
from routekeel.streams.topics import admin_client
from tests.stack.sink_feed import Feed, counts, expected
from tests.stack.system import MakeSystem, System, wait_until

pytestmark = pytest.mark.stack
LOAD = ("--synthetic", "--sessions", "5", "--chunks", "4", "--shape", "2,2,4", "--seed")


def pid_of(stack: LocalStack, name: str) -> int:
    (service,) = [service for service in stack.status() if service.name == name]
    assert service.pid is not None
    return service.pid


def refusal(running: System, command: str, code: set[int], **flags: Any) -> dict[str, Any]:
    """The JSON object of a command that must not start, run in this process."""
    line = running.line(command, "--json", **flags)
    result = CliRunner().invoke(app, line[line.index(command) :])
    assert result.exit_code in code, (result.output, result.exception)
    found: dict[str, Any] = json.loads(result.stdout.strip().splitlines()[-1])
    assert found["ok"] is False and found["exit_code"] == result.exit_code
    assert found["error"] and found["hint"] and "\n" not in found["error"]
    assert "Traceback" not in result.output
    return found


def test_worker_and_sink_live_through_a_broker_that_goes_and_comes(
    system: MakeSystem, local_stack: LocalStack
) -> None:
    running = system("broker-away", **{"worker.stall_timeout_s": 120})
    settings = running.prepare()
    assert running.run("produce", *LOAD, "1") == 0
    both = [running.start("worker"), running.start("sink")]
    wait_until(lambda: counts(settings)["telemetry"] == (40, 40), "the first rows", alive=both)
    psutil.Process(pid_of(local_stack, "kafka")).kill()
    local_stack.up()
    assert running.run("produce", *LOAD, "2") == 0

    def all_there() -> bool:
        found = counts(settings)
        return found["telemetry"] == found["weights"] == (80, 80)

    wait_until(all_there, "the rows after it", alive=both)
    for process in both:
        process.terminate()
    codes = [process.wait(60) for process in both]
    assert codes == [0, 0], "".join(running.log_of(process) for process in both)
    assert max(running.log_of(process).count("aiokafka") for process in both) < 40
    report = audit(settings)
    assert (report.ok, report.events, report.duplicated) == (True, 40, 0), report.to_json()


def test_bounds_are_told_again_after_the_broker_was_away(
    system: MakeSystem, local_stack: LocalStack
) -> None:
    """By a client that asked meanwhile: it has learned of leaders that were deposed before it asked."""
    running = system("bounds-after")
    settings = running.prepare()
    assert running.run("produce", *LOAD, "1") == 0
    keys = [(settings.topics.logits, p) for p in range(settings.topics.partitions)]
    admin = admin_client(settings)
    before = log_bounds(settings, keys, admin)
    for _ in range(3):
        psutil.Process(pid_of(local_stack, "kafka")).kill()
        with ThreadPoolExecutor(1) as pool:
            back = pool.submit(local_stack.up)
            while not back.done():
                with suppress(ServiceUnavailable):
                    assert log_bounds(settings, keys, admin) == before
            back.result()
        assert log_bounds(settings, keys, admin) == before


@pytest.mark.parametrize("command", ["sink", "worker"])
def test_a_registry_that_is_away_at_the_start_is_said(system: MakeSystem, command: str) -> None:
    running = system(f"registry-away-{command}")
    running.prepare()
    found = refusal(running, command, {3}, **{"registry.url": "http://127.0.0.1:1"})
    assert "schema registry" in found["error"] and "routekeel up" in found["hint"]


def test_a_registry_that_goes_is_waited_for(system: MakeSystem, local_stack: LocalStack) -> None:
    """A sink that has seen no schema yet has to ask, and the registry is gone by then."""
    running = system("registry-goes")
    settings = running.prepare()
    feed = Feed(settings)
    sink = running.start("sink")
    running.pages(sink)
    os.kill(pid_of(local_stack, "registry"), signal.SIGKILL)
    feed.publish(range(20))
    wait_until(
        lambda: "the schema registry does not answer" in running.log_of(sink),
        "the sink to say so",
        alive=[sink],
    )
    assert counts(settings)["telemetry"] == (0, 0)
    local_stack.up()
    wait_until(lambda: counts(settings) == expected(20), "the rows", alive=[sink])
    sink.terminate()
    assert sink.wait(30) == 0, running.log_of(sink)


def test_a_clickhouse_that_hangs_for_longer_than_an_insert_may_take(
    system: MakeSystem, local_stack: LocalStack
) -> None:
    running = system("store-slow", **{"sink.session_timeout_s": 6})
    settings = running.prepare()
    feed = Feed(settings)
    feed.publish(range(20))
    sink = running.start("sink")
    wait_until(lambda: counts(settings) == expected(20), "the first rows", alive=[sink])
    gateway = pid_of(local_stack, "clickhouse")
    os.kill(gateway, signal.SIGSTOP)
    try:
        feed.publish(range(20, 60))
        # Said only after an insert got no answer for as long as one may take.
        wait_until(lambda: "trying again" in running.log_of(sink), "a time-out", alive=[sink])
    finally:
        os.kill(gateway, signal.SIGCONT)
    assert LeaseTerms.of(settings).insert_bound_s == pytest.approx(3.6)
    wait_until(lambda: counts(settings) == expected(60), "all rows, once", alive=[sink])
    sink.terminate()
    assert sink.wait(30) == 0, running.log_of(sink)
    assert counts(settings) == expected(60)


@contextmanager
def taken_port() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield int(holder.getsockname()[1])


@pytest.mark.parametrize("command", ["worker", "sink"])
def test_a_port_that_is_taken_is_said(system: MakeSystem, command: str) -> None:
    running = system(f"port-taken-{command}")
    running.prepare()
    with taken_port() as port:
        found = refusal(running, command, {2, 3}, **{f"{command}.web_port": port})
    assert str(port) in found["error"] and f"{command}.web_port" in found["hint"]


def at_endpoints(local_stack: LocalStack) -> dict[str, Any]:
    """The stack's addresses as settings, for a state folder that is not the stack's."""
    found = local_stack.up()
    return {
        "kafka.bootstrap_servers": found.kafka_bootstrap,
        "registry.url": found.registry_url,
        "clickhouse.host": found.clickhouse_host,
        "clickhouse.port": found.clickhouse_port,
        "clickhouse.username": found.clickhouse_username,
        "clickhouse.password": found.clickhouse_password,
    }


@pytest.mark.parametrize(
    ("command", "setting"),
    [
        ("worker", "worker.store_dir"),
        ("worker", "stack.state_dir"),
        ("sink", "stack.state_dir"),
    ],
)
def test_a_folder_that_cannot_be_made_is_said(
    system: MakeSystem, local_stack: LocalStack, tmp_path: Path, command: str, setting: str
) -> None:
    """A file in the way, since the tests may run as root, whom no permission stops."""
    running = system(f"folder-{command}-{setting[-9:].replace('_', '-')}")
    running.prepare()
    in_the_way = tmp_path / "file"
    in_the_way.write_text("not a folder", encoding="utf-8")
    found = refusal(
        running, command, {2, 3}, **at_endpoints(local_stack), **{setting: in_the_way / "below"}
    )
    assert str(in_the_way) in found["error"] and setting in found["hint"]


def test_a_demo_that_cannot_write_its_folder_says_so(system: MakeSystem, tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("not a folder", encoding="utf-8")
    result = CliRunner().invoke(
        app, ["demo", "--json", "--set", f"stack.state_dir={in_the_way / 'below'}"]
    )
    found = json.loads(result.stdout.strip().splitlines()[-1])
    assert result.exit_code in (2, 3), result.output
    assert str(in_the_way) in found["error"] and "Traceback" not in result.output
