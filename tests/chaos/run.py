"""One seed from its schedule to its verdict, on a stack that is made for chaos (bench.py)."""

from __future__ import annotations

import subprocess
import time
import traceback
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka.admin import AdminClient

from routekeel.streams.history.store import connect
from routekeel.streams.topics import plan_topics
from tests.chaos.bench import DISK_MIB, STATE_DISK, Bench
from tests.chaos.disk import SmallDisk
from tests.chaos.faults import Conductor
from tests.chaos.feed import Feed
from tests.chaos.rig import Rig
from tests.chaos.schedule import SERVICES, Schedule
from tests.chaos.verdict import Verdict, judge, settle
from tests.stack.system import System

ROOT = Path(__file__).resolve().parents[2]
SESSIONS = 400
FEED_S = 600.0
LOG_CHARS = 3_000


@dataclass(frozen=True)
class Outcome:
    """A seed's result; `failure` is empty where everything held."""

    schedule: Schedule
    seconds: float
    settle_s: float
    restarts: int
    poison: int
    time_steps: int
    verdict: Verdict | None
    failure: str
    log: tuple[str, ...]
    commit: str = "not recorded"


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
    try:
        verdict = run.go()
    except Exception as error:
        said = [f"--- {n}\n{text}" for n, text in run.last_words().items()]
        failure = "\n".join([traceback.format_exc(), *said]) or repr(error)
        with suppress(OSError):  # one may be renamed meanwhile
            bench.keep_logs(folder)
    finally:
        run.close()
    if any(fault.target == SERVICES for fault in schedule.faults):
        # A broker whose clock was set back goes on, but may ask its controller for nothing until the clock
        # is where it had been (seen of 4.1.1): no topic can be created or deleted.
        bench.restart_broker()
    _remove(bench, system)
    seconds = time.monotonic() - began
    rig, feed = run.rig, run.feed
    return Outcome(
        schedule,
        seconds,
        run.settle_s,
        rig.restarts if rig else 0,
        feed.poisoned if feed else 0,
        feed.time_steps if feed else 0,
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
        self._conductor: Conductor | None = None
        self.rig: Rig | None = None
        self.feed: Feed | None = None
        self.settle_s = 0.0

    def go(self) -> Verdict:
        """Feed, faults, peace, verdict."""
        schedule, system = self._schedule, self._system
        settings = system.prepare()
        states = system.folder / "states"
        disks = dict(self._bench.disks)
        if STATE_DISK in schedule.kinds():
            self._state_disk = disks[STATE_DISK] = SmallDisk(states, DISK_MIB[STATE_DISK])
        pace = schedule.pace
        self.feed = feed = Feed(settings, schedule.seed, pace.chunks, SESSIONS, pace.rate)
        self.rig = rig = Rig(
            self._bench.stack,
            system,
            workers=2,
            sinks=2,
            state_folder=states,
            clocks=self._bench.clocks,
        )
        rig.wait_ready()
        feed.start()
        self._conductor = conductor = Conductor(rig, schedule, disks, self._bench.clocks)
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
        """End all processes, give all room back: the last named first, whatever fails of it."""
        with ExitStack() as last:
            if self._state_disk is not None:
                last.callback(self._state_disk.close)
            for disk in self._bench.disks.values():
                last.callback(disk.free)
            last.callback(self._system.close)
            if self._conductor is not None:
                # A fault must not bring up what is taken down next.
                last.callback(self._conductor.close)
            if self.rig is not None:
                last.callback(self.rig.close)
            if self.feed is not None:
                last.callback(self.feed.stop)


def _flags(bench: Bench, schedule: Schedule) -> dict[str, object]:
    """The seed's settings, which the oracle and the audits get as well; addresses spelt out, so that a
    member can start while a service is away."""
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
        **schedule.policy.flags(),
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
