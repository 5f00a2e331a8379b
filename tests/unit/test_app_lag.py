"""The lag watchdog and the health page, with a clock and ends of the log that the test sets."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry

from routekeel.operators.config import DEFAULT
from routekeel.streams.app.lag import LagWatch
from routekeel.streams.app.metrics import WorkerMetrics
from routekeel.streams.app.partitions import Partitions
from routekeel.streams.app.web import exercise_controller, web_app
from routekeel.streams.errors import ServiceUnavailable
from routekeel.streams.settings import load_settings
from routekeel.streams.topology.changelog import MemoryStore
from routekeel.streams.topology.config import TopologyConfig
from routekeel.streams.topology.partition import PartitionProcessor


@dataclass
class Owned:
    """Partitions as the watch sees them."""

    applied: dict[int, int] = field(default_factory=dict)
    dirty: bool = False
    recovering: set[int] = field(default_factory=set)
    progress_at: float = 0.0

    @property
    def assigned(self) -> set[int]:
        return set(self.applied) | self.recovering

    def ready(self) -> dict[int, Any]:
        return {
            p: SimpleNamespace(
                processor=SimpleNamespace(
                    watermark=SimpleNamespace(applied_offset=offset),
                    is_dirty=self.dirty,
                    sessions=1,
                )
            )
            for p, offset in self.applied.items()
        }


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Any:
    ends: dict[int, int] = {}
    away = SimpleNamespace(value=False)

    def log_bounds(settings: Any, keys: Any, admin: Any) -> Any:
        if away.value:
            raise ServiceUnavailable("Kafka does not answer")
        return {key: (0, ends[key[1]]) for key in keys}

    monkeypatch.setattr("routekeel.streams.app.lag.log_bounds", log_bounds)
    monkeypatch.setattr("routekeel.streams.app.lag.admin_client", lambda settings: None)
    settings = load_settings(None, {"stack.state_dir": str(tmp_path)}, {}).settings
    owned, clock, metrics = Owned(), Clock(), WorkerMetrics()
    watch = LagWatch(settings, owned, metrics, clock)  # type: ignore[arg-type]
    return SimpleNamespace(
        owned=owned, clock=clock, watch=watch, ends=ends, away=away, metrics=metrics
    )


async def test_records_that_wait_with_nothing_applied_are_a_stall(world: Any) -> None:
    world.owned.applied, world.ends[0] = {0: 9}, 10
    await world.watch.refresh()
    world.clock.now += 50
    await world.watch.refresh()
    assert world.watch.stalled_for(progress_at=100.0) == 0  # no lag, no stall
    world.ends[0] = 12
    await world.watch.refresh()
    assert world.watch.lag == {0: 2}
    world.clock.now += 30
    await world.watch.refresh()
    assert world.watch.stalled_for(progress_at=100.0) == 30  # since the lag began
    assert world.watch.stalled_for(progress_at=world.clock.now - 5) == 5  # since the last progress
    world.owned.applied = {0: 11}
    await world.watch.refresh()
    assert world.watch.stalled_for(progress_at=100.0) == 0


async def test_a_long_recovery_is_no_stall_as_long_as_it_gets_on(world: Any) -> None:
    world.owned.recovering, world.ends[0] = {0}, 1000
    await world.watch.refresh()
    for _ in range(5):
        world.clock.now += 50
        world.owned.progress_at = world.clock.now - 1  # some of the changelog was read
        await world.watch.refresh()
        assert world.watch.lag == {0: 1000}
        assert world.watch.stalled_for(progress_at=100.0) == 1
    world.clock.now += 50  # and now it hangs
    await world.watch.refresh()
    assert world.watch.stalled_for(progress_at=100.0) == 51


async def test_partitions_tell_that_a_recovery_gets_on() -> None:
    clock, seen = Clock(), []
    clock.now = 100.0

    class Log:
        async def recover(self, partition: int, reader: Any, progress: Any) -> None:
            for read in range(3):
                clock.now += 40
                progress(read, 3)
                seen.append(partitions.progress_at)
            clock.now += 40

        async def follow(self, *_: Any) -> None: ...

    config = TopologyConfig(kernel="numpy")
    nothing: Any = None
    partitions = Partitions(
        "t",
        Log(),  # type: ignore[arg-type]
        lambda partition: MemoryStore(),
        lambda source, store: PartitionProcessor(source, config, nothing, nothing, store),
        WorkerMetrics(),
        clock=clock,
    )
    assert partitions.progress_at == 100
    await partitions.assign({0}, "id")
    assert await partitions.get(0) is not None
    assert seen == [140, 180, 220]
    assert partitions.progress_at == 260


async def test_idle_means_applied_and_durable(world: Any) -> None:
    world.owned.applied, world.ends[0], world.owned.dirty = {0: 9}, 10, True
    await world.watch.refresh()
    world.clock.now += 5
    await world.watch.refresh()
    assert world.watch.idle_for(progress_at=100.0) == 0  # not durable yet
    world.owned.dirty = False
    await world.watch.refresh()
    world.clock.now += 3
    assert world.watch.idle_for(progress_at=100.0) == 3
    world.owned.recovering = {1}
    world.ends[1] = 0
    await world.watch.refresh()
    assert world.watch.idle_for(progress_at=100.0) == 0  # a partition is still being recovered


async def test_a_worker_without_partitions_is_idle(world: Any) -> None:
    await world.watch.refresh()
    world.clock.now += 7
    assert world.watch.idle_for(progress_at=0.0) == 7


async def test_a_broker_that_is_away_keeps_the_old_numbers(world: Any) -> None:
    world.owned.applied, world.ends[0] = {0: 4}, 10
    await world.watch.refresh()
    world.away.value = True
    await world.watch.refresh()
    assert world.watch.lag == {0: 5}


async def test_a_partition_given_up_has_no_numbers_any_more(world: Any) -> None:
    def shown() -> set[str]:
        (family,) = world.metrics.lag.collect()
        return {sample.labels["partition"] for sample in family.samples}

    world.owned.applied, world.ends[0], world.ends[1] = {0: 4, 1: 4}, 10, 10
    await world.watch.refresh()
    assert shown() == {"0", "1"}
    world.owned.applied = {1: 4}
    await world.watch.refresh()
    assert shown() == {"1"}


@pytest.mark.parametrize("ok", [True, False])
async def test_the_pages(ok: bool) -> None:
    registry = CollectorRegistry()
    health = {"ok": ok, "controller": exercise_controller(DEFAULT, "numpy")}
    async with TestClient(TestServer(web_app(registry, lambda: health))) as client:
        answer = await client.get("/health")
        assert answer.status == (200 if ok else 503)
        assert (await answer.json())["controller"]["ok"] is True
        assert (await client.get("/metrics")).status == 200


def test_a_controller_that_computes_something_else_is_not_ok(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from routekeel.streams.app import web

    real = web.step

    def wrong(config: Any, state: Any, chunk: Any, kernel: Any) -> Any:
        after, output = real(config, state, chunk, kernel="numpy")
        if kernel == "numba":
            after = SimpleNamespace(w_hat=after.w_hat * 1.01)
        return after, output

    monkeypatch.setattr(web, "step", wrong)
    assert exercise_controller(DEFAULT, "numba")["ok"] is False
