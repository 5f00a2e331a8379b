"""A chaos schedule is data: the same from its seed everywhere, of all kinds, and shrunk by leaving out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from routekeel.streams.settings import load_settings
from routekeel.streams.settings.tree import WorkerSettings
from tests.chaos.__main__ import command_for
from tests.chaos.legend import MEANING
from tests.chaos.policy import CHECKPOINTS, ROUTES, draw_policy
from tests.chaos.record import append, read
from tests.chaos.run import Outcome
from tests.chaos.schedule import (
    ALL_KINDS,
    BROKER_AWAY_S,
    CLOCK_STEP,
    FAULTS,
    PAUSE_S,
    SERVICES,
    SINKS,
    WORKERS,
    Fault,
    Pace,
    draw,
)
from tests.chaos.table import render
from tests.chaos.verdict import Verdict
from tests.stack.system import System

PACE = Pace()


def outcome(seed: int, failure: str = "") -> Outcome:
    verdict = None if failure else Verdict(20_000, 150_000, 200, 400, 7)
    return Outcome(draw(seed, PACE), 99.0, 5.0, 2, 100, 40, verdict, failure, ("1 s  kill",))


def test_a_seed_is_a_schedule() -> None:
    assert draw(5, PACE) == draw(5, PACE) != draw(6, PACE)
    points = [fault.at_chunk for fault in draw(5, PACE).faults]
    assert points == sorted(points) and len(points) == FAULTS + 2
    assert points[0] > 0 and points[-1] < PACE.chunks


@pytest.mark.parametrize("first", [0, 1, 50])
def test_ten_seeds_have_all_kinds(first: int) -> None:
    schedules = [draw(seed, PACE) for seed in range(first, first + 10)]
    drawn = {kind for schedule in schedules for kind in schedule.kinds()}
    assert drawn == set(ALL_KINDS) == set(MEANING)
    for schedule in schedules:
        sessions = {"worker": schedule.worker_session_s, "sink": schedule.sink_session_s}
        for fault in schedule.faults:
            if fault.kind == "pause 30 s":
                assert fault.seconds == PAUSE_S
            if fault.kind == "pause past session":
                assert fault.seconds > sessions[fault.target.split("-")[0]]
            if fault.kind == "broker away":
                assert BROKER_AWAY_S[0] <= fault.seconds <= BROKER_AWAY_S[1]
        if "full disk: state" in schedule.kinds():
            assert schedule.store == "rocksdb"


def test_a_clock_of_a_member_and_that_of_the_services_steps_and_moves_nothing_else() -> None:
    schedules = [draw(seed, PACE) for seed in range(100)]
    steps = [[f for f in s.faults if f.kind == CLOCK_STEP] for s in schedules]
    targets = [sorted(fault.target for fault in each) for each in steps]
    assert {target for each in targets for target in each} == {*WORKERS, *SINKS, SERVICES}
    assert all(len(each) == 2 and SERVICES in each for each in targets)
    offsets = {fault.offset_s for each in steps for fault in each}
    assert min(offsets) < 0 < max(offsets) and 0 not in offsets
    # The eight as they were before there were steps.
    others = [f for f in draw(3, PACE).faults if f.kind != CLOCK_STEP]
    assert [f.number for f in others] == list(range(1, FAULTS + 1))
    assert others[0] == Fault(1, 1_873, "broker away", "kafka", 51.4)


def test_settings_are_drawn_of_every_kind_and_half_are_the_shipped_ones() -> None:
    policies = [draw(seed, PACE).policy for seed in range(100)]
    assert policies == [draw_policy(seed) for seed in range(100)]
    assert {(p.routes, p.standbys) for p in policies} == {(r, n) for r in ROUTES for n in (0, 1)}
    assert 40 <= sum(p.checkpoints == "shipped" for p in policies) <= 60


@pytest.mark.parametrize("checkpoints", CHECKPOINTS)
@pytest.mark.parametrize("routes", ROUTES)
def test_settings_are_what_a_system_has(checkpoints: str, routes: str, tmp_path: Path) -> None:
    """Whatever the tests' systems have otherwise: "shipped" is the product's own."""
    policy = draw_policy(0)._replace(checkpoints=checkpoints, routes=routes, standbys=1)
    worker = System(None, tmp_path, "drawn", **policy.flags()).settings.worker
    assert worker.standby_replicas == 1
    shipped, names = load_settings(environ={}).settings.worker, ["batch_records_max"]
    names += ["checkpoint_interval_s", "checkpoint_share_max", "checkpoint_interval_max_s"]
    of_checkpoints = [getattr(worker, name) == getattr(shipped, name) for name in names]
    assert all(of_checkpoints) == (checkpoints == "shipped")
    names = ["weights_every_tokens", "state_every_tokens", "weights_change", "weights_precision"]
    of_routes = [getattr(worker, name) == getattr(WorkerSettings(), name) for name in names]
    assert all(of_routes) == (routes == "shipped")


def test_faults_are_left_out_without_moving_the_others() -> None:
    whole = draw(3, PACE)
    impossible = {"full disk: state", "full disk: store", "full disk: broker"}
    assert any(fault.kind in impossible for fault in whole.faults)
    left = draw(3, PACE, impossible)
    assert left.faults == tuple(f for f in whole.faults if f.kind not in impossible)
    fewer = tuple(f for f in whole.faults if f.number not in {1, 10})
    assert whole.without([1, 10]).faults == fewer and len(fewer) == len(whole.faults) - 2


def test_outcomes_are_kept_and_shown(tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.jsonl"
    for one in (outcome(4, "AssertionError: rows differ"), outcome(2), outcome(4)):
        append(path, one)
    assert [json.loads(line)["schedule"]["seed"] for line in path.read_text().splitlines()] == [
        4,
        2,
        4,
    ]
    assert read(path) == [outcome(2), outcome(4, "AssertionError: rows differ"), outcome(4)]
    policy = draw(2, PACE).policy
    page = render(
        [outcome(2), outcome(9, "AssertionError: rows differ")], "the command", "today", {}
    )
    assert "1 of 2 runs held: 20,000 events, 150,000 rows" in page
    assert str(draw(9, PACE)) in page and "AssertionError: rows differ" in page
    assert f"| 2 | {policy.checkpoints} | {policy.routes} |" in page
    assert page.count("| exact |") == 1 and page.count("| **failed** |") == 1


def test_the_page_says_how_to_run_its_seeds_again() -> None:
    assert (
        command_for({4, 3, 5}, "--rate 9") == "`python -m tests.chaos --seed 3 --seeds 3 --rate 9`"
    )
    assert command_for({0, 1, 7}, "--rate 9").endswith("--rate 9` with A, N = 0, 2; 7, 1")
