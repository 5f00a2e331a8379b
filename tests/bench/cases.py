"""One shape, all contenders: the same events, one process each, one after the other, interleaved."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from routekeel.infra.local.stack import LocalStack

from .bench_topics import RunTopics
from .cadence import Every
from .load import Shape, weights_expected, write_events
from .read_back import bytes_written
from .samples import Sample, compare, sample

CONTENDERS = ("routekeel", "loop", "quix", "bytewax", "faust")
REFERENCE = "loop"
# A record at a time with a table write each: a run over all events would take longer than all others.
SLOW = ("faust",)
SLOW_SHARE = 10
TIMEOUT_S = 1800
console = Console(stderr=True)


@dataclass(frozen=True)
class Bench:
    """Where the stack is, and which contenders run how often."""

    stack: LocalStack
    state_dir: Path
    repeats: int
    contenders: tuple[str, ...] = CONTENDERS

    def broker(self) -> psutil.Process:
        """The broker's process."""
        pid = next(s.pid for s in self.stack.status() if s.name == "kafka")
        return psutil.Process(pid)


def contender_command(name: str, tag: str, events: int, shape: Shape) -> list[str]:
    """The command line of one contender's process."""
    numbers = (events, shape.tokens, shape.layers, shape.experts)
    module = "tests.bench.contenders"
    return [sys.executable, "-m", module, name, tag, *(str(number) for number in numbers)]


def cpu_s(process: psutil.Process) -> float:
    """The CPU seconds a process has used."""
    times = process.cpu_times()
    return float(times.user + times.system)


def measure(
    bench: Bench, name: str, topics: RunTopics, events: int, shape: Shape
) -> dict[str, float]:
    """One run of one contender. Raises SystemExit where it fails or takes for ever."""
    broker = bench.broker()
    before = cpu_s(broker)
    done = subprocess.run(
        contender_command(name, topics.tag, events, shape),
        env=topics.environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stdout[-1000:]}\n{done.stderr[-4000:]}")
    result = json.loads(done.stdout.strip().splitlines()[-1])
    if result["events"] != events:
        raise SystemExit(f"{name} says it had {result['events']} events, there are {events}")
    return {
        "events_per_s": events / result["seconds"],
        "cpu_us_per_event": 1e6 * result["cpu_s"] / events,
        "broker_cpu_us_per_event": 1e6 * (cpu_s(broker) - before) / events,
        "rss_mb": result["rss_mb"],
        **{name: result[name] for name in ("main_thread_s", "sending_s") if name in result},
    }


@dataclass
class Group:
    """Contenders that read the same events: MB of them, their Weights, every run, and what is kept of one."""

    megabytes: float
    weights: int
    runs: dict[str, list[dict[str, float]]]
    samples: dict[str, Sample] = field(default_factory=dict)
    written: list[dict[str, dict[str, int]]] = field(default_factory=list)


def run_case(bench: Bench, shape: Shape, events: int, sessions: int) -> dict[str, Any]:
    """All contenders on one shape, each run verified; the stock agent on fewer events of its own."""
    fast = tuple(name for name in bench.contenders if name not in SLOW)
    slow = tuple(name for name in bench.contenders if name in SLOW)
    group = _run_group(bench, fast, shape, events, sessions)
    runs, samples = group.runs, group.samples
    if slow:
        fewer = _run_group(bench, slow, shape, max(sessions, events // SLOW_SHARE), sessions)
        runs, samples = runs | fewer.runs, samples | fewer.samples
    reference = samples[REFERENCE] if REFERENCE in samples else next(iter(samples.values()))
    compared = {name: compare(name, found, reference) for name, found in samples.items()}
    return {
        "shape": str(shape),
        "events": events,
        "sessions": sessions,
        "megabytes": group.megabytes,
        "weights_records": group.weights,
        # How often there was a checkpoint is not the same in every run: the one that wrote most.
        "bytes": max(group.written, key=lambda of: of["state log"]["plain"], default=None),
        "records_compared": compared,
        **summary({name: runs[name] for name in bench.contenders}),
    }


def _run_group(
    bench: Bench, names: tuple[str, ...], shape: Shape, events: int, sessions: int
) -> Group:
    """Every run of these contenders over the same events."""
    # A name that was just deleted is not used again: the broker may yet take events for the old log.
    source = f"bench.logits.{shape.key}.{events}"
    loading = RunTopics.make(bench.state_dir, f"bench-load-{shape.key}", source)
    console.print(f"{shape}: writing {events:,} events of {sessions:,} sessions")
    megabytes = write_events(loading.settings, shape, events, sessions, seed=1)
    weights = weights_expected(shape, events, sessions, Every.of(loading.settings))
    group = Group(megabytes, weights, {name: [] for name in names})
    for repeat in range(bench.repeats):
        # Each repeat begins with another contender, so that none always follows the same one.
        turn = repeat % len(names)
        for name in names[turn:] + names[:turn]:
            topics = RunTopics.make(bench.state_dir, f"bench-{name}-{shape.key}-{repeat}", source)
            group.runs[name].append(measure(bench, name, topics, events, shape))
            topics.verify(name, events, weights)
            if repeat == 0:
                group.samples[name] = sample(topics.settings)
            if name == "routekeel":
                group.written.append(bytes_written(topics.settings, bench.state_dir))
            topics.remove()
            console.print(f"  {name:<10} {group.runs[name][-1]['events_per_s']:>10,.0f} events/s")
    loading.remove([source])
    return group


def summary(runs: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Medians by contender of everything measured, and the range of the rate."""
    out: dict[str, Any] = {}
    for key in ("events_per_s", "cpu_us_per_event", "broker_cpu_us_per_event", "rss_mb"):
        out[key] = {n: statistics.median(run[key] for run in r) for n, r in runs.items()}
    rates = {name: [run["events_per_s"] for run in r] for name, r in runs.items()}
    out["events_per_s_range"] = {name: [min(r), max(r)] for name, r in rates.items()}
    return out
