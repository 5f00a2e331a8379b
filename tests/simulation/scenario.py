"""What a seed means: how much of everything, how often what goes wrong, and what is in the log."""

from __future__ import annotations

import random
from dataclasses import dataclass, fields, replace
from typing import Any

from routekeel.schemas.codec import Encoder
from routekeel.streams.topology.cadence import Cadence
from routekeel.streams.topology.config import TopologyConfig
from routekeel.streams.topology.intake import STRETCH_MIN
from routekeel.streams.topology.records import SourceRecord
from tests.stream.chunks import START_US, chunk_fields

CADENCES = (
    Cadence(),
    Cadence(every_tokens=1, state_every_tokens=1),
    Cadence(every_tokens=3, state_every_tokens=5, precision="F16"),
    Cadence(every_tokens=0, state_every_tokens=0, change=0.05),
)
"""When weights are published: by default, after each chunk, now and then, on change."""
CLOCK_STEPS_MS = (-172_800_000, -3_600_000, -5_000, 0, 0, 5_000, 3_600_000, 172_800_000)


@dataclass(frozen=True)
class Scenario:
    """Counts, and shares per step or per event of what goes wrong. Zero is the calmest of each."""

    seed: int
    partitions: int = 1
    members: int = 1
    sessions: int = 1
    chunks: int = 10
    steps: int = 400
    poison: float = 0.0
    odd: float = 0.0
    crash: float = 0.0
    stop: float = 0.0
    zombie: float = 0.0
    rebalance: float = 0.0
    keep_queue: float = 0.0
    gap: float = 0.0
    repeat: float = 0.0
    send_error: float = 0.0
    topic_away: float = 0.0
    stop_writing: float = 0.0
    store_fault: float = 0.0
    evict: bool = False
    standby: bool = False
    disks: bool = False
    full_disk: float = 0.0
    cadence: int = 0
    stretch_min: int = STRETCH_MIN
    retention: float = 0.0
    clock_steps: float = 0.0

    @classmethod
    def of(cls, seed: int) -> Scenario:
        """The scenario of a seed; about a third of the dangers are off in each."""
        rng = random.Random(seed)

        def share(high: float) -> float:
            return 0.0 if rng.random() < 0.3 else rng.uniform(0, high)

        return cls(
            seed,
            partitions=rng.randint(1, 3),
            members=rng.randint(1, 3),
            sessions=rng.randint(1, 5),
            chunks=rng.randint(5, 60),
            steps=rng.randint(100, 900),
            poison=share(0.15),
            odd=share(0.3),
            crash=share(0.02),
            stop=share(0.015),
            zombie=share(0.01),
            rebalance=share(0.02),
            keep_queue=share(1.0),
            gap=share(0.2),
            repeat=share(0.2),
            send_error=share(0.02),
            topic_away=share(0.4),
            store_fault=share(0.4),
            evict=rng.random() < 0.4,
            standby=rng.random() < 0.5,
            stop_writing=share(0.2),
            disks=rng.random() < 0.5,
            full_disk=share(0.1),
            cadence=rng.randrange(len(CADENCES)),
            # Batches are small here: else records would always be taken in one by one.
            stretch_min=rng.choice([1, 3, STRETCH_MIN]),
            retention=share(0.05),
            clock_steps=share(0.1),
        )

    def calmer(self) -> list[Scenario]:
        """Scenarios with less of one thing, the boldest first."""
        found = []
        calm = Scenario(self.seed)
        for field in fields(self):
            now, least = getattr(self, field.name), getattr(calm, field.name)
            if field.name == "seed" or now == least:
                continue
            found.append(replace(self, **{field.name: least}))
            if isinstance(now, int) and not isinstance(now, bool) and now > least + 1:
                found.append(replace(self, **{field.name: (now + least) // 2}))
        return found

    @property
    def config(self) -> TopologyConfig:
        """The topology's parameters; with `evict` sessions come and go all the time."""
        often = TopologyConfig(token_rows_share=0.5, cadence=CADENCES[self.cadence])
        if not self.evict:
            return often
        return replace(often, session_ttl_us=20_000, sessions_max=2, requests_max=2)


class BrokerClock:
    """What a broker stamps on a log's records, whose clock is set now and then: wrong, or right again."""

    def __init__(self, scenario: Scenario, log: str) -> None:
        self._rng = random.Random(f"clock {scenario.seed} {log}")
        self._share, self._wrong_ms = scenario.clock_steps, 0

    def stamp(self, now_ms: int) -> int:
        """The time of a record that is appended now."""
        if self._rng.random() < self._share:
            self._wrong_ms = self._rng.choice(CLOCK_STEPS_MS)
        return now_ms + self._wrong_ms


class Source:
    """Makes the log's records, in order, from the seed."""

    def __init__(self, scenario: Scenario, encoder: Encoder) -> None:
        self._scenario, self._encoder = scenario, encoder
        self._rng = random.Random(f"source {scenario.seed}")
        self._next: dict[str, int] = {}
        self._clock_us = START_US
        self._broker_clock = BrokerClock(scenario, "logits")
        self.made = 0

    def record(self, offset_of: dict[int, int]) -> tuple[int, SourceRecord]:
        """(partition, record); `offset_of` says what each partition's next offset is."""
        rng, scenario = self._rng, self._scenario
        self.made += 1
        number = rng.randrange(scenario.sessions)
        session, partition = f"session-{number}", number % scenario.partitions
        value = self._encoder.encode(self._chunk(session))
        if rng.random() < scenario.poison:
            value = self._poison(value)
        timestamp_ms = self._broker_clock.stamp(self._clock_us // 1000)
        return partition, SourceRecord(
            offset_of[partition], timestamp_ms, session.encode(), value, [("trace", b"1")]
        )

    def _chunk(self, session: str) -> dict[str, Any]:
        rng = self._rng
        steps = rng.randint(1, 3)
        start = self._next.get(session, 0)
        self._clock_us += rng.randint(0, 5_000)
        changes: dict[str, Any] = {"event_time_us": self._clock_us, "sequence": start}
        if rng.random() < self._scenario.odd:
            kind = rng.randrange(6)
            if kind == 0:  # a repeat, or an overlap
                start = rng.randint(0, start)
                changes["sequence"] = start
            elif kind == 1:  # a gap
                start += rng.randint(1, 3)
            elif kind == 2:  # another request of the session
                changes["request_id"] = f"request-{rng.randint(2, 4)}"
            elif kind == 3:  # another model
                changes["model"] = rng.choice(["model-b", "model-a"])
            elif kind == 4:  # a stage's layers only
                changes["layers"] = [rng.choice([0, 1, 7])]
            else:  # a clock far off
                changes["event_time_us"] += rng.choice([-(10**9), 10**13])
        self._next[session] = max(self._next.get(session, 0), start + steps)
        return chunk_fields(session, start, steps, **changes)

    def _poison(self, value: bytes) -> bytes:
        rng = self._rng
        return rng.choice(
            [value[: rng.randrange(len(value))], b"\0\0\0\3\xe7" + value[5:], rng.randbytes(20)]
        )
