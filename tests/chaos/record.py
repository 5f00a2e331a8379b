"""Outcomes as lines of JSON, so that a long run that is cut off, or several at once, lose nothing."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from tests.chaos.policy import Policy
from tests.chaos.run import Outcome
from tests.chaos.schedule import Fault, Pace, Schedule
from tests.chaos.verdict import Verdict


def append(path: Path, outcome: Outcome) -> None:
    """Add one outcome."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(outcome)) + "\n")


def read(path: Path) -> list[Outcome]:
    """Every outcome, by seed and in the order of the runs: one that failed is never left out."""
    found: list[Outcome] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        fields = json.loads(line)
        schedule = fields["schedule"]
        schedule |= {
            "pace": Pace(*schedule["pace"]),
            "policy": Policy(*schedule["policy"]),
            "faults": tuple(Fault(*fault) for fault in schedule["faults"]),
        }
        verdict = fields["verdict"]
        outcome = Outcome(
            **fields
            | {
                "schedule": Schedule(**schedule),
                "verdict": None if verdict is None else Verdict(**verdict),
                "log": tuple(fields["log"]),
            }
        )
        found.append(outcome)
    return sorted(found, key=lambda outcome: outcome.schedule.seed)
