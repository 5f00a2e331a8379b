"""What a chaos run does to the system, drawn from a seed as data: at which chunk which fault comes.

A schedule can be printed, had again from its seed, and shrunk by leaving faults out. Poison records,
repeated sends and steps of the producers' event times are in the input of every run (feed.py); the
settings that a seed draws are in policy.py.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import NamedTuple

from tests.chaos.policy import Policy, draw_policy

WORKERS = ("worker-0", "worker-1")
SINKS = ("sink-0", "sink-1")
KINDS = (
    "kill worker",
    "kill sink",
    "kill broker",
    "kill store",
    "kill registry",
    "pause 30 s",
    "pause past session",
    "worker storm",
    "sink storm",
    "store away",
    "broker away",
    "full disk: state",
    "full disk: store",
    "full disk: broker",
)
CLOCK_STEP = "clock step"
ALL_KINDS = (*KINDS, CLOCK_STEP)
FAULTS = 8
SERVICES = "services"
"""Broker, registry and store: they have one clock, as on one machine."""
CLOCK_STEPS_S = (-172_800.0, -3_600.0, -5.0, 5.0, 3_600.0, 172_800.0)
"""Two days: past a producer id's expiry and past what a broker allows, within the topics' retention."""
CLOCK_WRONG_S = (5.0, 20.0)
PAUSE_S = 30.0
BROKER_AWAY_S = (30.0, 60.0)
"""Many times what a client waits for an answer; past the short session timeouts, about the long ones."""
FIRST_SHARE, LAST_SHARE = 0.05, 0.85
SHORT_SESSIONS_S = (6.0, 10.0)
LONG_SESSIONS_S = (40.0, 40.0)
"""Session timeouts of worker and sink. In long ones a member outlives a pause of 30 s."""


class Fault(NamedTuple):
    """One fault: after so many chunks were sent, of this kind, to whom, for how long; of a clock how far."""

    number: int
    at_chunk: int
    kind: str
    target: str
    seconds: float
    offset_s: float = 0.0

    def __str__(self) -> str:
        lasting = f" by {self.offset_s:+,.0f} s" if self.offset_s else ""
        lasting += f" for {self.seconds:.0f} s" if self.seconds else ""
        return f"{self.number:2d}. after {self.at_chunk:6,d} chunks: {self.kind} ({self.target}){lasting}"


class Pace(NamedTuple):
    """How much a run sends, how fast, and how long a store stays away."""

    chunks: int = 10_000
    rate: float = 200.0
    away_s: float = 25.0


@dataclass(frozen=True)
class Schedule:
    """A whole run: its settings and its faults in order."""

    seed: int
    pace: Pace
    store: str
    worker_session_s: float
    sink_session_s: float
    policy: Policy
    faults: tuple[Fault, ...]

    def without(self, numbers: Collection[int]) -> Schedule:
        """The same run with some faults left out; the others stay as they are."""
        return replace(self, faults=tuple(f for f in self.faults if f.number not in numbers))

    def kinds(self) -> Counter[str]:
        """How many faults of each kind."""
        return Counter(fault.kind for fault in self.faults)

    def __str__(self) -> str:
        head = (
            f"seed {self.seed}: {self.pace.chunks:,} chunks, state in {self.store}, session timeouts "
            f"{self.worker_session_s:.0f} s (workers) and {self.sink_session_s:.0f} s (sinks), {self.policy}"
        )
        return "\n".join([head, *(f"  {fault}" for fault in self.faults)])


def draw(seed: int, pace: Pace, impossible: Collection[str] = ()) -> Schedule:
    """The schedule of a seed. Consecutive seeds go through all kinds; those of `impossible` are left out.

    The draw does not depend on `impossible`, so a seed means the same on every machine but for them.
    """
    rng = random.Random(f"chaos {seed}")
    sure = {KINDS[seed % len(KINDS)], KINDS[(seed + len(KINDS) // 2) % len(KINDS)]}
    others = [kind for kind in KINDS if kind not in sure]
    chosen = sorted(sure) + rng.sample(others, 4)
    chosen += rng.choices(("kill worker", "kill sink"), k=FAULTS - len(chosen))
    long = "pause 30 s" in chosen and "pause past session" not in chosen and rng.random() < 0.5
    sessions = LONG_SESSIONS_S if long else SHORT_SESSIONS_S
    low, high = int(FIRST_SHARE * pace.chunks), int(LAST_SHARE * pace.chunks)
    points = sorted(rng.randint(low, high) for _ in chosen)
    rng.shuffle(chosen)
    faults = tuple(
        _fault(number, point, kind, sessions, pace, rng)
        for number, (point, kind) in enumerate(zip(points, chosen, strict=True), start=1)
    )
    store = "rocksdb" if "full disk: state" in chosen else rng.choice(("memory", "rocksdb"))
    faults = tuple(sorted((*faults, *_clock_steps(seed, low, high)), key=lambda f: f.at_chunk))
    drawn = Schedule(seed, pace, store, *sessions, draw_policy(seed), faults)
    return drawn.without([fault.number for fault in faults if fault.kind in impossible])


def _clock_steps(seed: int, low: int, high: int) -> list[Fault]:
    """A step of one member's clock and one of the services', from a generator of their own: what else a
    seed draws does not move by them."""
    rng = random.Random(f"clock {seed}")
    return [
        Fault(
            number,
            rng.randint(low, high),
            CLOCK_STEP,
            target,
            round(rng.uniform(*CLOCK_WRONG_S), 1),
            rng.choice(CLOCK_STEPS_S),
        )
        for number, target in enumerate((rng.choice(WORKERS + SINKS), SERVICES), start=FAULTS + 1)
    ]


def _fault(
    number: int,
    at_chunk: int,
    kind: str,
    sessions: tuple[float, float],
    pace: Pace,
    rng: random.Random,
) -> Fault:
    worker, sink = rng.choice(WORKERS), rng.choice(SINKS)
    target = rng.choice((worker, sink))
    session_s = sessions[0] if target == worker else sessions[1]
    spread = rng.uniform(0, 1)
    match kind:
        case "kill worker":
            return Fault(number, at_chunk, kind, worker, 0)
        case "kill sink":
            return Fault(number, at_chunk, kind, sink, 0)
        case "kill broker":
            return Fault(number, at_chunk, kind, "kafka", round(3 * spread, 1))
        case "kill store":
            return Fault(number, at_chunk, kind, "clickhouse", round(3 * spread, 1))
        case "kill registry":
            return Fault(number, at_chunk, kind, "registry", round(5 * spread, 1))
        case "pause 30 s":
            return Fault(number, at_chunk, kind, target, PAUSE_S)
        case "pause past session":
            return Fault(number, at_chunk, kind, target, round(session_s * (1.2 + 0.8 * spread), 1))
        case "worker storm":
            return Fault(number, at_chunk, kind, "3 workers", 12)
        case "sink storm":
            return Fault(number, at_chunk, kind, "6 members", 10)
        case "store away":
            return Fault(number, at_chunk, kind, "clickhouse", pace.away_s)
        case "broker away":
            low, high = BROKER_AWAY_S
            return Fault(number, at_chunk, kind, "kafka", round(low + (high - low) * spread, 1))
        case "full disk: state":
            return Fault(number, at_chunk, kind, "workers", round(6 + 6 * spread, 1))
        case "full disk: store":
            return Fault(number, at_chunk, kind, "clickhouse", round(6 + 6 * spread, 1))
        case "full disk: broker":
            return Fault(number, at_chunk, kind, "kafka", round(6 + 6 * spread, 1))
    raise ValueError(f"no such kind of fault: {kind}")
