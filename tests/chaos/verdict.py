"""What must hold after any chaos: the audit is clean, and states and outputs are the oracle's bytes."""

from __future__ import annotations

from dataclasses import dataclass

from routekeel.streams.history.audit import audit
from routekeel.streams.settings import Settings
from tests.stack.exactness import assert_outputs_exact, assert_states_exact, expected


@dataclass(frozen=True)
class Verdict:
    """The counts of a run that held; `repeats` are outputs that came more than once, same bytes."""

    events: int
    rows: int
    dead_letters: int
    sessions: int
    repeats: int


def judge(settings: Settings) -> Verdict:
    """Compare everything. AssertionError where anything differs."""
    drivers = expected(settings)
    sessions = assert_states_exact(settings, drivers)
    repeats = assert_outputs_exact(settings, drivers)
    report = audit(settings)
    assert report.ok, report.render()
    assert report.events == sum(len(driver.log) for driver in drivers.values())
    dead = sum(len(driver.dead_letters) for driver in drivers.values())
    assert report.dlq == dead, f"{report.dlq} dead letters are stored, {dead} are expected"
    return Verdict(report.events, report.rows, report.dlq, sessions, repeats)
