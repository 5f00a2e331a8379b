"""What must hold after any chaos: both audits are clean, and states and outputs are the oracle's bytes."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from routekeel.streams.driver import TopologyDriver
from routekeel.streams.errors import RoutekeelError
from routekeel.streams.history.audit import audit
from routekeel.streams.settings import Settings
from tests.stack.exactness import assert_outputs_exact, assert_states_exact, expected
from tests.stack.system import System

AMISS = ("missing", "pending", "duplicated", "weights_missing", "weights_duplicated")
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


def unpublished(drivers: dict[int, TopologyDriver]) -> int:
    """How many records were applied that, by the settings, publish no route.

    `routekeel audit` knows no cadence and says of each that its route is missing. Here it may say so of
    exactly as many; whether the right ones are there is seen by the replay and by the outputs.
    """
    return sum(
        weights is None and int(driver.telemetry_decoder.decode(telemetry)["tokens_applied"]) > 0
        for driver in drivers.values()
        for _, telemetry, weights in driver.distinct_bytes()
    )


def settle(settings: Settings, quiet: Callable[[], int]) -> float:
    """Wait until everything sent is stored, by the members' own doing; how long that took.

    `quiet` says how many records publish no route. It is asked only when there is nothing else to wait
    for, since the oracle has to run for it, whose time is not the members'.

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
            routes = sum(p.weights_missing for p in report.partitions)
            now, state = time.monotonic(), report.render()
            if not missing:
                if not routes or routes == quiet():
                    return now - began
                state += f"\n({quiet()} records publish no route)"
            missing += routes
            if fewest is None or missing < fewest:
                fewest, better_at = missing, time.monotonic()
        still_s = time.monotonic() - better_at
        assert still_s < SETTLE_S, f"in peace, and nothing got better for {still_s:.0f} s: {state}"
        time.sleep(SETTLE_STEP_S)  # the stack's processes go on; there is no event to await


def judge(system: System, drivers: dict[int, TopologyDriver] | None = None) -> Verdict:
    """Compare everything with the oracle, which is run here if need be. AssertionError where anything
    differs."""
    settings = system.settings
    drivers = drivers or expected(settings)
    counted = _audit(system)
    wrong = {name: counted[name] for name in AMISS if counted[name]}
    assert wrong in ({}, {"weights_missing": unpublished(drivers)}), counted
    replayed = _audit(system, "--replay")
    assert replayed["ok"], replayed
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
    try:
        report: dict[str, Any] = json.loads(said.splitlines()[-1])
    except (IndexError, ValueError):
        report = {}
    assert code == (0 if report.get("ok") else 1), (
        f"routekeel audit {' '.join(arguments)} ended with {code}: {said[-4000:]}"
    )
    return report
