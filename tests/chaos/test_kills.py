"""kill -9 of worker and sink at random while 200,000 chunks flow; then nothing is wrong anywhere."""

from __future__ import annotations

import os
import random
import threading

import pytest

from routekeel.infra.local.stack import LocalStack
from tests.chaos.feed import Feed
from tests.chaos.policy import CHECKPOINTS
from tests.chaos.rig import Rig
from tests.chaos.verdict import judge
from tests.stack.sink_feed import counts
from tests.stack.system import MakeSystem, wait_until

pytestmark = [pytest.mark.stack, pytest.mark.stress, pytest.mark.timeout(3000)]
CHUNKS = 200_000
KILLS = 10


@pytest.mark.parametrize("store", ["memory", "rocksdb"])
def test_200_000_chunks_under_kill_9(
    local_stack: LocalStack, system: MakeSystem, store: str
) -> None:
    seed = int(os.environ.get("SEED") or random.randrange(2**32))
    print(f"seed {seed} (SEED={seed} runs it again)")
    rng = random.Random(seed)
    own = system(f"kills-{store}-{seed % 10**6}", **{"worker.store": store}, **CHECKPOINTS["fast"])
    settings = own.prepare()
    feed = Feed(settings, seed, CHUNKS, sessions=1000, rate=1300)
    rig = Rig(local_stack, own, workers=1, sinks=1)
    feed.start()
    errors: list[BaseException] = []

    def rows() -> int:
        return counts(settings)["telemetry"][0]

    def kill_on_progress(name: str, progress: object, step: int, own_rng: random.Random) -> None:
        try:
            for _ in range(KILLS):
                goal = progress() + own_rng.randint(1, step)  # type: ignore[operator]
                wait_until(lambda g=goal: progress() >= g, f"{name} to get on")  # type: ignore[misc, operator]
                assert not feed.done, "the feed ended before the kills"
                rig.kill(name)
        except BaseException as error:
            errors.append(error)

    killers = [
        threading.Thread(target=kill_on_progress, args=arguments)
        for arguments in (
            ("worker-0", rig.outputs, 3_000, random.Random(rng.random())),
            ("sink-0", rows, 9_000, random.Random(rng.random())),
        )
    ]
    for killer in killers:
        killer.start()
    for killer in killers:
        killer.join()
    assert not errors, errors
    feed.join(600)
    rig.drain()
    print("\n".join(rig.log))
    print(judge(own))
