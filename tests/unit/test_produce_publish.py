"""Publishing from a source that may wait: paced, never overrunning the buffer, honest about the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from routekeel.streams.errors import ConfigurationError, ServiceUnavailable
from routekeel.streams.produce.chunk import Chunk
from routekeel.streams.produce.publish import publish
from routekeel.streams.produce.synthetic import SyntheticLoad
from routekeel.streams.sdk.refusal import DELIVERY_FAILED


class FakeProducer:
    """A producer with a buffer of so many chunks that a broker empties when it is waited for."""

    def __init__(self, room: int = 1000, healthy: bool = True, ready: bool = True) -> None:
        self.room, self.healthy, self.ready = room, healthy, ready
        self.config = SimpleNamespace(registry_url="http://registry", bootstrap_servers="broker:1")
        self.waiting: list[str] = []
        self.delivered: list[str] = []
        self.accepted = 0
        self.dropped: Counter[str] = Counter({DELIVERY_FAILED: 0, "non_finite": 0})
        self.most_waiting = 0

    def stats(self) -> Any:
        return SimpleNamespace(
            accepted=self.accepted,
            delivered=len(self.delivered),
            in_flight=len(self.waiting),
            dropped=dict(self.dropped),
        )

    def wait_ready(self, timeout_s: float) -> bool:
        return self.ready

    def wait_for_room(self, size: int, timeout_s: float) -> bool:
        if len(self.waiting) >= self.room:
            self.flush(timeout_s)
        return len(self.waiting) < self.room

    def emit_logits(self, session_id: str, logits: Any, **fields: Any) -> bool:
        assert len(self.waiting) < self.room, "emitted without room: it would have been dropped"
        if not np.isfinite(logits).all():
            self.dropped["non_finite"] += 1
            return False
        self.accepted += 1
        self.waiting.append(session_id)
        self.most_waiting = max(self.most_waiting, len(self.waiting))
        return True

    def flush(self, timeout_s: float) -> int:
        if self.healthy:
            self.delivered += self.waiting
            self.waiting = []
        return len(self.waiting)


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 50.0
        self.sleeps: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds


def chunks(count: int, bad: int = -1) -> Iterator[Chunk]:
    for number in range(count):
        value = np.nan if number == bad else 1.0
        yield Chunk(f"s{number}", np.full((1, 1, 2), value), {"position_start": 0})


def run(producer: FakeProducer, source: Any, rate: float | None = None, **more: Any) -> Any:
    clock = Clock()
    result = publish(source, producer, rate, clock_s=clock, sleep=clock.sleep, **more)  # type: ignore[arg-type]
    return result, clock


def test_a_rate_is_held_over_the_whole_run() -> None:
    result, clock = run(FakeProducer(), chunks(41), rate=20.0)
    assert (result.sent, result.delivered, result.undelivered) == (41, 41, 0)
    assert clock.now - 50.0 == pytest.approx(40 / 20.0, abs=0.003)
    assert max(clock.sleeps) <= 1 / 20.0 + 1e-9  # even, not in bursts
    assert result.chunks_per_s == pytest.approx(41 / 2.0, rel=0.01)


def test_without_a_rate_nothing_sleeps_and_the_buffer_is_never_overrun() -> None:
    producer = FakeProducer(room=7)
    result, clock = run(producer, chunks(100))
    assert clock.sleeps == []
    assert (result.delivered, producer.most_waiting) == (100, 7)
    assert producer.delivered == [f"s{number}" for number in range(100)]


def test_what_is_refused_is_counted_and_handed_out() -> None:
    refused: list[Chunk] = []
    seen: list[int] = []
    result, _ = run(
        FakeProducer(), chunks(5, bad=3), progress=seen.append, on_refused=refused.append
    )
    assert (result.sent, result.refused) == (4, {"non_finite": 1})
    assert [chunk.session_id for chunk in refused] == ["s3"]
    assert seen[-1] == 5


@pytest.mark.parametrize(
    ("producer", "message"),
    [
        (FakeProducer(ready=False), "the schema registry at http://registry does not answer"),
        (FakeProducer(room=2, healthy=False), "Kafka at broker:1 has taken nothing for 30 s"),
        (FakeProducer(healthy=False), "0 chunks were delivered, 3 wait"),
    ],
)
def test_services_that_do_not_answer_are_said(producer: FakeProducer, message: str) -> None:
    with pytest.raises(ServiceUnavailable, match=message) as caught:
        run(producer, chunks(3))
    assert "routekeel up" in caught.value.hint


def test_ctrl_c_flushes_and_reports() -> None:
    def interrupted() -> Iterator[Chunk]:
        yield from chunks(3)
        raise KeyboardInterrupt

    result, _ = run(FakeProducer(), interrupted())
    assert result.interrupted and (result.sent, result.delivered) == (3, 3)


def test_the_same_seed_gives_the_same_chunks_and_another_does_not() -> None:
    def content(seed: int, **more: Any) -> list[tuple[str, int, bytes]]:
        load = SyntheticLoad(3, 40, shape=(2, 2, 4), seed=seed, **more)
        return [(c.session_id, c.fields["position_start"], c.logits.tobytes()) for c in load]

    first = content(7)
    assert first == content(7)
    assert {data for *_, data in first}.isdisjoint(data for *_, data in content(8))
    # How many sessions run at once changes the order, and not one byte of a chunk.
    assert first != content(7, concurrent=1) and sorted(first) == sorted(content(7, concurrent=1))
    load = SyntheticLoad(3, 40, shape=(2, 2, 4), seed=7)
    for session, position, data in first:
        chunk = load.chunk(int(session[-6:]), position // 2)
        assert (chunk.session_id, chunk.logits.tobytes()) == (session, data)


@pytest.mark.parametrize(
    "wrong",
    [{"sessions": 0}, {"shape": (0, 1, 2)}, {"seed": -1}, {"top_k": 9}, {"encoding": "TOPM_F16"}],
)
def test_impossible_loads_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        SyntheticLoad(**{"sessions": 1, "chunks_per_session": 1, "shape": (1, 1, 4), **wrong})
