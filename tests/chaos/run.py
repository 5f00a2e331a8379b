"""One seed from its schedule to its verdict, on a stack that is made for chaos."""

from __future__ import annotations

import subprocess
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka.admin import AdminClient

from routekeel.infra.local.stack import LocalStack
from routekeel.operators.config import RouterConfig
from routekeel.streams.app.web import exercise_controller
from routekeel.streams.history.store import connect
from routekeel.streams.topics import plan_topics
from tests.chaos.disk import NotMounted, SmallDisk
from tests.chaos.faults import Conductor
from tests.chaos.feed import Feed
from tests.chaos.rig import Rig
from tests.chaos.schedule import Schedule
from tests.chaos.verdict import Verdict, judge, settle
from tests.stack.conftest import config_at
from tests.stack.system import System

ROOT = Path(__file__).resolve().parents[2]
STORE_DISK_MIB = 2048
STATE_DISK_MIB = 512
SESSIONS = 400
FEED_S = 600.0
LOG_CHARS = 3_000


@dataclass(frozen=True)
class Bench:
    """A running stack for chaos. `impossible` says which kinds of faults cannot be had here, and why."""

    stack: LocalStack
    folder: Path
    store_disk: SmallDisk | None
    impossible: dict[str, str]


@dataclass(frozen=True)
class Outcome:
    """A seed's result; `failure` is empty where everything held."""

    schedule: Schedule
    seconds: float
    settle_s: float
    restarts: int
    poison: int
    clock_steps: int
    verdict: Verdict | None
    failure: str
    log: tuple[str, ...]
    commit: str = "not recorded"


@contextmanager
def chaos_bench(folder: Path) -> Iterator[Bench]:
    """A stack of its own under `folder`, its store on a small disk where that can be mounted."""
    stack = LocalStack(config_at(folder / "state"))
    disk: SmallDisk | None = None
    impossible: dict[str, str] = {}
    try:
        disk = SmallDisk(folder / "state" / "clickhouse", STORE_DISK_MIB)
    except NotMounted as error:
        impossible = dict.fromkeys(("full disk: state", "full disk: store"), str(error))
    try:
        # Compiled once and kept on disk, so that members start at their usual speed.
        exercise_controller(RouterConfig(), "auto")
        stack.up()
        yield Bench(stack, folder, disk, impossible)
    finally:
        stack.down()
        if disk is not None:
            disk.close()
        stack.wipe()


def run_seed(bench: Bench, schedule: Schedule, attempt: int = 0) -> Outcome:
    """Run a schedule. What went wrong is in the outcome; nothing is raised but KeyboardInterrupt."""
    began, commit = time.monotonic(), code_version()
    bench.stack.up()
    name = f"chaos-{schedule.seed}-{attempt}"
    folder = bench.folder / name
    folder.mkdir()
    system = System(bench.stack, folder, name, **_flags(bench, schedule))
    run = _Run(bench, schedule, system)
    failure, verdict = "", None
    with ExitStack() as cleanup:
        cleanup.callback(_remove, bench, system)
        cleanup.callback(run.close)
        try:
            verdict = run.go()
        except Exception as error:
            said = [f"--- {n}\n{text}" for n, text in run.last_words().items()]
            failure = "\n".join([traceback.format_exc(), *said]) or repr(error)
    seconds = time.monotonic() - began
    rig, feed = run.rig, run.feed
    return Outcome(
        schedule,
        seconds,
        run.settle_s,
        rig.restarts if rig else 0,
        feed.poisoned if feed else 0,
        feed.clock_steps if feed else 0,
        verdict,
        failure,
        tuple(rig.log) if rig else (),
        commit,
    )


def code_version() -> str:
    """The commit of this checkout, marked where files differ from it."""
    line = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "not recorded"


class _Run:
    """The parts of one run, so that they can be ended whatever happened."""

    def __init__(self, bench: Bench, schedule: Schedule, system: System) -> None:
        self._bench, self._schedule, self._system = bench, schedule, system
        self._state_disk: SmallDisk | None = None
        self.rig: Rig | None = None
        self.feed: Feed | None = None
        self.settle_s = 0.0

    def go(self) -> Verdict:
        """Feed, faults, peace, verdict."""
        schedule, system = self._schedule, self._system
        settings = system.prepare()
        states = system.folder / "states"
        if "full disk: state" in schedule.kinds():
            self._state_disk = SmallDisk(states, STATE_DISK_MIB)
        pace = schedule.pace
        self.feed = feed = Feed(settings, schedule.seed, pace.chunks, SESSIONS, pace.rate)
        self.rig = rig = Rig(self._bench.stack, system, workers=2, sinks=2, state_folder=states)
        rig.wait_ready()
        feed.start()
        conductor = Conductor(rig, schedule, self._state_disk, self._bench.store_disk)
        conductor.run(lambda: feed.sent, lambda: feed.done)
        feed.join(FEED_S)
        rig.say("everything is sent and the faults are over")
        self.settle_s = settle(settings)
        rig.say(f"settled after {self.settle_s:.0f} s")
        if not rig.end():
            rig.drain()  # a last checkpoint may be missing
        return judge(system)

    def last_words(self) -> dict[str, str]:
        """The end of what each process wrote."""
        logs = sorted(self._system.folder.glob("*.log"))
        return {
            path.name: path.read_text(encoding="utf-8", errors="replace")[-LOG_CHARS:]
            for path in logs
        }

    def close(self) -> None:
        """End all processes, give all room back."""
        if self.feed is not None:
            self.feed.stop()
        if self.rig is not None:
            self.rig.close()
        self._system.close()
        if self._bench.store_disk is not None:
            self._bench.store_disk.free()
        if self._state_disk is not None:
            self._state_disk.free()
            self._state_disk.close()


def _flags(bench: Bench, schedule: Schedule) -> dict[str, object]:
    """Short session timeouts; addresses spelt out, so that a member can start while a service is away."""
    endpoints = bench.stack.up()
    return {
        "kafka.bootstrap_servers": endpoints.kafka_bootstrap,
        "registry.url": endpoints.registry_url,
        "clickhouse.host": endpoints.clickhouse_host,
        "clickhouse.port": endpoints.clickhouse_port,
        "clickhouse.username": endpoints.clickhouse_username,
        "clickhouse.password": endpoints.clickhouse_password,
        "worker.store": schedule.store,
        "worker.session_timeout_s": schedule.worker_session_s,
        "sink.session_timeout_s": schedule.sink_session_s,
        "worker.token_rows_share": 0.05,
    }


def _remove(bench: Bench, system: System) -> None:
    """Topics and tables go, so that a night's run does not end slower than it began."""
    bench.stack.up()
    settings = system.settings
    admin = AdminClient(settings.kafka.client_config())
    for future in admin.delete_topics([plan.name for plan in plan_topics(settings)]).values():
        future.exception()  # one that is not there is gone as well
    client = connect(settings.clickhouse)
    client.command(f"DROP DATABASE IF EXISTS {settings.clickhouse.database} SYNC")
    client.close()
