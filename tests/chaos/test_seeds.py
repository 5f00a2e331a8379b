"""Seeded faults of every kind against two workers and two sinks; after each seed nothing is wrong.

SEED is the first seed, SEEDS how many; `python -m tests.chaos` runs the same and keeps the table.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.chaos.bench import Bench, chaos_bench
from tests.chaos.run import run_seed
from tests.chaos.schedule import Pace, draw

pytestmark = [pytest.mark.stack, pytest.mark.stress, pytest.mark.timeout(1800)]
FIRST = int(os.environ.get("SEED") or 0)
COUNT = int(os.environ.get("SEEDS") or 10)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A stack for chaos."""
    with chaos_bench(tmp_path_factory.mktemp("chaos")) as made:
        yield made


@pytest.mark.parametrize("seed", range(FIRST, FIRST + COUNT))
def test_everything_is_exact_after(bench: Bench, seed: int) -> None:
    schedule = draw(seed, Pace(), bench.impossible)
    for kind, why in bench.impossible.items():
        print(f"left out: {kind} ({why})")
    print(schedule)
    outcome = run_seed(bench, schedule)
    print("\n".join(outcome.log))
    assert not outcome.failure, f"python -m tests.chaos --seed {seed}\n{outcome.failure}"
    print(outcome.verdict)
