"""The worker on the real broker: kill -9 at random, and every state and output equals the oracle's.

The oracle is the in-memory driver over the same records, one partition at a time, in one batch.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from routekeel.streams.settings import Settings
from routekeel.streams.topics import ensure_topics
from tests.bench.load import Shape, write_events
from tests.stack.exactness import assert_outputs_exact, assert_states_exact, expected
from tests.stack.system import MakeSystem, end_of, wait_until

pytestmark = pytest.mark.stack
IDLE = ("--until-idle", "2")
# Checkpoints as often as can be, so that kills fall between and into many.
SMALL = {"worker.checkpoint_interval_s": 0.1, "worker.checkpoint_share_max": 1e3}


def assert_exact(settings: Settings) -> None:
    """States and outputs are the oracle's."""
    drivers = expected(settings)
    assert_states_exact(settings, drivers)
    assert_outputs_exact(settings, drivers)


@pytest.mark.parametrize("store", ["memory", "rocksdb"])
def test_kill_and_restart_is_exact(system: MakeSystem, store: str, tmp_path: Path) -> None:
    seed = 11
    print(f"seed {seed}")
    rng = random.Random(seed)
    running = system(
        f"kill-{store}", **{"worker.store": store, "worker.store_dir": str(tmp_path / "state")}
    )
    settings = running.settings
    ensure_topics(settings)
    write_events(settings, Shape(2, 2, 4), 4000, 50, seed)
    for _ in range(3):
        worker = running.start(
            "worker",
            **(SMALL | {"worker.batch_records_max": 100}),
        )
        before = end_of(settings, settings.topics.telemetry)
        goal = before + rng.randint(1, 400)
        wait_until(
            lambda g=goal: end_of(settings, settings.topics.telemetry) >= g,
            "outputs",
            alive=[worker],
        )  # type: ignore[misc]
        running.kill(worker)
        write_events(settings, Shape(2, 2, 4), 500, 50, seed + 1)
    last = running.start("worker", *IDLE)
    assert last.wait(120) == 0, running.log_of(last)
    assert_exact(settings)


def test_two_workers_share_and_take_over(system: MakeSystem) -> None:
    seed = 5
    print(f"seed {seed}")
    running = system("two-workers")
    settings = running.settings
    ensure_topics(settings)
    write_events(settings, Shape(2, 2, 4), 3000, 60, seed)
    small = SMALL | {"worker.batch_records_max": 50}
    first, second = running.start("worker", **small), running.start("worker", **small)
    wait_until(
        lambda: end_of(settings, settings.topics.telemetry) >= 500, "outputs", alive=[first, second]
    )
    running.kill(first)
    write_events(settings, Shape(2, 2, 4), 3000, 60, seed + 1)
    third = running.start("worker", *IDLE, **small)
    assert third.wait(120) == 0, running.log_of(third)
    assert second.poll() is None, running.log_of(second)
    second.terminate()
    assert second.wait(60) == 0, running.log_of(second)
    last = running.start("worker", *IDLE)
    assert last.wait(120) == 0, running.log_of(last)
    assert_exact(settings)
