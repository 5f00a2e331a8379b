"""This app alone: the cost of an event with few and with very many sessions, and a second worker."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from rich.console import Console

from routekeel.streams.topics import changelog_topic

from .bench_topics import RunTopics
from .cases import Bench
from .live import SESSION_TIMEOUT_S, Lap, Workers, workers
from .load import Conversations, EventWriter, Shape

console = Console(stderr=True)


@dataclass
class Crowd:
    """A worker with so many live sessions, and what it was measured at."""

    sessions: int
    topics: RunTopics
    writer: EventWriter
    talk: Conversations
    running: Workers
    written: int
    laps: list[Lap] = field(default_factory=list)
    state_records: int = 0

    def measure(self, events: int, seed: int) -> None:
        """Time so many events of sessions drawn at random."""
        with self.running.paused():
            self.writer.write(self.talk.at_random(events, np.random.default_rng(seed)))
        self.written += events
        state_log = changelog_topic(self.topics.settings)
        before = self.topics.ends(state_log)
        self.laps.append(self.running.lap(self.written))
        self.state_records += self.topics.ends(state_log) - before

    def result(self, events: int) -> dict[str, Any]:
        """Medians over the laps."""
        costs = [1e6 * lap.worker_cpu_s / events for lap in self.laps]
        return {
            "sessions": self.sessions,
            "cpu_us_per_event": statistics.median(costs),
            "cpu_us_range": [min(costs), max(costs)],
            "events_per_s": statistics.median(events / lap.seconds for lap in self.laps),
            "rss_mb": max(lap.rss_mb for lap in self.laps),
            "state_records_per_event": self.state_records / (events * len(self.laps)),
        }


@contextmanager
def crowd(bench: Bench, shape: Shape, sessions: int) -> Iterator[Crowd]:
    """A worker that has applied an event of each of so many sessions, and keeps them all."""
    tag = f"bench-sessions-{sessions}"
    topics = RunTopics.make(
        bench.state_dir,
        tag,
        f"{tag}.logits",
        worker__session_timeout_s=SESSION_TIMEOUT_S,
        worker__sessions_max_per_partition=max(1000, sessions),
    )
    writer, talk = EventWriter(topics.settings, shape, seed=2), Conversations(sessions)
    with workers(bench, topics, 1, shape) as running:
        writer.write(talk.turns(sessions))
        running.wait_until_durable()
        yield Crowd(sessions, topics, writer, talk, running, sessions)
    topics.remove()


def cost_by_sessions(
    bench: Bench, shape: Shape, events: int, counts: tuple[int, ...]
) -> dict[str, Any]:
    """CPU µs of an event while so many sessions are alive, each with events before the measured ones.

    The workers of all counts run at once and are measured in turn: a machine that is faster in one
    minute than in the next would else be taken for the sessions' doing.
    """
    share = events // bench.repeats
    with ExitStack() as stack:
        crowds = [stack.enter_context(crowd(bench, shape, sessions)) for sessions in counts]
        for repeat in range(bench.repeats):
            for one in crowds:
                one.measure(share, seed=3 + repeat)
                cost = one.result(share)["cpu_us_per_event"]
                console.print(f"  {one.sessions:>9,} sessions {cost:8.1f} µs/event so far")
        cases = [one.result(share) for one in crowds]
    costs = [case["cpu_us_per_event"] for case in cases]
    return {"shape": str(shape), "cases": cases, "ratio": costs[-1] / costs[0]}


def one_and_two(bench: Bench, shape: Shape, events: int, sessions: int) -> dict[str, Any]:
    """One worker against two that share the partitions; broker and workers share the machine's cores."""
    runs: dict[int, list[dict[str, float]]] = {1: [], 2: []}
    for repeat in range(bench.repeats):
        for count in runs:
            tag = f"bench-workers-{count}-{repeat}"
            topics = RunTopics.make(
                bench.state_dir,
                tag,
                f"{tag}.logits",
                worker__session_timeout_s=SESSION_TIMEOUT_S,
            )
            writer, talk = EventWriter(topics.settings, shape, seed=4), Conversations(sessions)
            with workers(bench, topics, count, shape) as running:
                # A few events first: the first batch ever is slower than the others.
                writer.write(talk.turns(sessions))
                running.wait_until_durable()
                with running.paused():
                    writer.write(talk.turns(events))
                lap = running.lap(sessions + events)
            topics.remove()
            runs[count].append({"events_per_s": events / lap.seconds, **asdict(lap)})
            console.print(f"  {count} worker(s) {runs[count][-1]['events_per_s']:10,.0f} events/s")
    cases = [_workers_case(count, of, events) for count, of in runs.items()]
    gain = cases[1]["events_per_s"] / cases[0]["events_per_s"]
    return {"shape": str(shape), "events": events, "cases": cases, "gain": gain}


def _workers_case(count: int, runs: list[dict[str, float]], events: int) -> dict[str, Any]:
    rates = [run["events_per_s"] for run in runs]

    def median(make: Any) -> float:
        return float(statistics.median(make(run) for run in runs))

    return {
        "workers": count,
        "events_per_s": statistics.median(rates),
        "events_per_s_range": [min(rates), max(rates)],
        "worker_cpu_us_per_event": median(lambda run: 1e6 * run["worker_cpu_s"] / events),
        "broker_cpu_us_per_event": median(lambda run: 1e6 * run["broker_cpu_s"] / events),
        "worker_cores": median(lambda run: run["worker_cpu_s"] / run["seconds"]),
        "broker_cores": median(lambda run: run["broker_cpu_s"] / run["seconds"]),
    }
