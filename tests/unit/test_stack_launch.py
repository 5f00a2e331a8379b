"""A start of the stack with small real processes: side by side, once, all or nothing."""

from __future__ import annotations

import os
import socket
import sys
import threading
from pathlib import Path

import pytest

from routekeel.infra.local import launch as launching
from routekeel.infra.local.contract import StackConfig
from routekeel.infra.local.errors import StackError
from routekeel.infra.local.launch import Launch
from routekeel.infra.local.layout import Layout
from routekeel.infra.local.ports import PortBook, answers, any_free
from routekeel.infra.local.processes import ProcessRecord, find, spawn, stop
from routekeel.infra.local.services import Say, Service
from routekeel.infra.local.stack import LocalStack

pytestmark = pytest.mark.slow

SERVE = """
import socket, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    server.accept()[0].close()
"""
DIE = "print('out of coffee'); raise SystemExit(3)"
HANG = "import signal; signal.pause()"


class Small:
    """A service that is one line of Python."""

    def __init__(self, layout: Layout, name: str, code: str = SERVE, needs: str = "") -> None:
        self.name = name
        self.needs = (needs,) if needs else ()
        self.wanted_port = any_free()
        self.starts = 0
        self._layout = layout
        self._code = code

    def start(self, port: int, ports: PortBook, say: Say) -> ProcessRecord:
        self.starts += 1
        mark = f"small-{self.name}"
        return spawn(
            self.name,
            [sys.executable, "-c", self._code, str(port), mark],
            port=port,
            mark=mark,
            console=self._layout.console(self.name),
            cwd=self._layout.state,
            env=dict(os.environ),
            record_path=self._layout.record_path(self.name),
        )

    def is_healthy(self, port: int, timeout_s: float) -> bool:
        return answers(port)


class Bench:
    """A state directory with services to start; everything is ended at the end."""

    def __init__(self, folder: Path) -> None:
        self.layout = Layout.of(folder)
        self.layout.prepare()
        self.services: dict[str, Service] = {}
        self.events: list[tuple[str, str, str]] = []
        self.config = StackConfig(state_dir=folder, start_timeout_s=20.0, stop_timeout_s=5.0)

    def add(self, name: str, code: str = SERVE, needs: str = "") -> Small:
        small = Small(self.layout, name, code, needs)
        self.services[name] = small
        return small

    def run(self, *names: str) -> PortBook:
        launch = Launch(
            self.config, self.layout, self.services, lambda *event: self.events.append(event)
        )
        return launch.run(names or tuple(self.services))

    def running(self) -> list[str]:
        records = [self.layout.record(name) for name in self.services]
        return [r.name for r in records if r is not None and find(r) is not None]

    def phases(self, name: str) -> list[str]:
        return [phase for service, phase, _ in self.events if service == name]


@pytest.fixture
def bench(tmp_path: Path):  # type: ignore[no-untyped-def]
    made = Bench(tmp_path / "state")
    yield made
    for name in made.services:
        record = made.layout.record(name)
        if record is not None:
            stop(record, 5.0)


def test_what_is_needed_comes_up_first_and_once(bench: Bench) -> None:
    broker, _, other = (
        bench.add("broker"),
        bench.add("registry", needs="broker"),
        bench.add("other"),
    )
    bench.run("registry")
    assert bench.running() == ["broker", "registry"]
    bench.run()
    assert bench.running() == ["broker", "registry", "other"]
    assert (broker.starts, other.starts) == (1, 1)
    assert bench.phases("broker") == ["start", "healthy", "running"]


def test_one_that_dies_takes_the_whole_start_with_it(bench: Bench) -> None:
    bench.add("broker")
    bench.add("registry", DIE, needs="broker")
    bench.add("other")
    with pytest.raises(StackError) as caught:
        bench.run()
    assert "registry ended while starting" in caught.value.message
    assert "out of coffee" in caught.value.message
    assert str(bench.layout.state) in caught.value.hint
    assert bench.running() == []
    assert bench.layout.record("broker") is None


def test_what_ran_before_survives_a_failed_start(bench: Bench) -> None:
    bench.add("broker")
    bench.run()
    bench.add("registry", DIE, needs="broker")
    with pytest.raises(StackError):
        bench.run()
    assert bench.running() == ["broker"]


def test_one_that_never_answers_is_ended(bench: Bench) -> None:
    bench.add("broker", HANG)
    bench.config = StackConfig(state_dir=bench.layout.state, start_timeout_s=0.5)
    with pytest.raises(StackError, match="did not answer within"):
        bench.run()
    assert bench.running() == []


def test_giving_up_leaves_nothing_half_started(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.add("broker", HANG)
    bench.add("other")
    real = launching.wait
    calls: list[int] = []

    def interrupted(*arguments, **options):  # type: ignore[no-untyped-def]
        calls.append(1)
        if len(calls) > 1:
            return real(*arguments, **options)
        while "healthy" not in bench.phases("other"):
            threading.Event().wait(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(launching, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bench.run()
    assert bench.running() == []


def test_a_foreign_process_on_the_port_is_avoided_and_said(bench: Bench) -> None:
    small = bench.add("broker")
    with socket.create_server(("127.0.0.1", small.wanted_port)):
        ports = bench.run()
    chosen = ports.get("broker")
    assert chosen not in (None, small.wanted_port)
    said = next(detail for _, phase, detail in bench.events if phase == "prepare")
    assert f"port {small.wanted_port} is taken; using {chosen}" in said


def test_a_port_lost_between_choice_and_start_is_chosen_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = bench.add("broker")
    real, thieves = small.start, []

    def stolen(port: int, ports: PortBook, say: Say) -> ProcessRecord:
        if not thieves:
            thieves.append(socket.create_server(("127.0.0.1", port)))
        return real(port, ports, say)

    monkeypatch.setattr(small, "start", stolen)
    monkeypatch.setattr(
        small, "is_healthy", lambda port, _: port != small.wanted_port and answers(port)
    )
    ports = bench.run()
    thieves[0].close()
    assert ports.get("broker") != small.wanted_port
    assert bench.running() == ["broker"]


def test_one_that_runs_but_hangs_is_started_anew(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launching, "HUNG_WAIT_S", 0.2)
    small = bench.add("broker")
    hung = Small(bench.layout, "broker", HANG)
    hung.start(small.wanted_port, PortBook(bench.layout.ports), lambda _: None)
    bench.run()
    assert bench.phases("broker") == ["stopping", "start", "healthy"]


def test_an_observer_that_fails_is_told_its_own_error(bench: Bench) -> None:
    bench.add("broker")

    def broken(*event: str) -> None:
        if event[1] != "start":
            raise BrokenPipeError("nobody reads")

    launch = Launch(bench.config, bench.layout, bench.services, broken)
    with pytest.raises(BrokenPipeError, match="nobody reads"):
        launch.run(["broker"])
    assert bench.running() == []


def test_an_unknown_service_is_named(bench: Bench) -> None:
    bench.add("broker")
    with pytest.raises(StackError, match="no service zookeeper"):
        bench.run("zookeeper")


def test_the_lock_is_held_by_one(tmp_path: Path) -> None:
    layout = Layout.of(tmp_path)
    layout.prepare()
    order: list[str] = []
    entered, waited = threading.Event(), threading.Event()

    def second() -> None:
        entered.wait(5)
        with layout.locked(waited.set):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with layout.locked(lambda: None):
        entered.set()
        assert waited.wait(5)
        order.append("first")
    thread.join(5)
    assert order == ["first", "second"]


def test_a_stack_that_was_never_up(tmp_path: Path) -> None:
    stack = LocalStack(StackConfig(state_dir=tmp_path / "none"))
    assert stack.endpoints() is None
    assert [s.health for s in stack.status()] == ["stopped"] * 3
    assert [s.name for s in stack.down()] == ["kafka", "registry", "clickhouse"]
    assert not (tmp_path / "none").exists()
    stack.wipe()
    assert not (tmp_path / "none").exists()


def test_wiping_leaves_what_is_not_the_stacks(tmp_path: Path) -> None:
    stack = LocalStack(StackConfig(state_dir=tmp_path / "state"))
    Layout.of(tmp_path / "state").prepare()
    (tmp_path / "state" / "notes").write_text("mine")
    stack.wipe()
    assert [p.name for p in (tmp_path / "state").iterdir()] == ["notes"]
