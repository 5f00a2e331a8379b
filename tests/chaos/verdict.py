"""What must hold after any chaos: both audits are clean, and states and outputs are the oracle's bytes."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass
from typing import Any

from routekeel.streams.errors import RoutekeelError
from routekeel.streams.history.audit import audit
from routekeel.streams.settings import Settings
from tests.stack.exactness import assert_outputs_exact, assert_states_exact, expected
from tests.stack.system import System

AUDIT_S = 300.0
SETTLE_S = 240.0
SETTLE_STEP_S = 2.0


@dataclass(frozen=True)
class Verdict:
    """The counts of a run that held; `rows` are all rows compared bit for bit, `repeats` are outputs
    that came more than once in their topics, same bytes, and once in the tables."""

    events: int
    rows: int
    dead_letters: int
    sessions: int
    repeats: int


def settle(settings: Settings) -> float:
    """Wait until everything sent is stored, by the members' own doing; how long that took.

    AssertionError when nothing has got better for SETTLE_S: a slow machine is not a stuck system.
    """
    began = better_at = time.monotonic()
    fewest, state = None, ""
    while True:
        try:
            report = audit(settings)
        except RoutekeelError as error:
            state = str(error)
        else:
            missing = report.missing + report.pending
            missing += sum(p.weights_missing for p in report.partitions)
            if not missing:
                return time.monotonic() - began
            state = report.render()
            if fewest is None or missing < fewest:
                fewest, better_at = missing, time.monotonic()
        still_s = time.monotonic() - better_at
        assert still_s < SETTLE_S, f"in peace, and nothing got better for {still_s:.0f} s: {state}"
        time.sleep(SETTLE_STEP_S)  # the stack's processes go on; there is no event to await


def judge(system: System) -> Verdict:
    """Compare everything. AssertionError where anything differs."""
    settings = system.settings
    counted = _audit(system)
    replayed = _audit(system, "--replay")
    drivers = expected(settings)
    sessions = assert_states_exact(settings, drivers)
    repeats = assert_outputs_exact(settings, drivers)
    events = sum(len(driver.log) for driver in drivers.values())
    assert counted["events"] == events == replayed["records"] + replayed["passed_over"]
    dead = sum(len(driver.dead_letters) for driver in drivers.values())
    assert counted["dlq"] == dead, f"{counted['dlq']} dead letters stored, {dead} expected"
    return Verdict(events, sum(replayed["rows"].values()), dead, sessions, repeats)


def _audit(system: System, *arguments: str) -> dict[str, Any]:
    """`routekeel audit …` as its own process; its report."""
    process: subprocess.Popen[bytes] = system.start("audit", "--json", *arguments)
    code = process.wait(AUDIT_S)
    said = system.log_of(process).strip()
    assert code == 0, f"routekeel audit {' '.join(arguments)} ended with {code}: {said[-4000:]}"
    report: dict[str, Any] = json.loads(said.splitlines()[-1])
    assert report["ok"], said[-4000:]
    return report
