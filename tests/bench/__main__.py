"""`make benchmark`: this app against a plain loop and stock Faust, in one run on the real broker, and
what the producer SDK costs its caller.

Every contender reads the same events and writes the same outputs, one process each, one after the
other. Prints medians with the spread, and writes .routekeel/benchmark.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from routekeel.infra.local.stack import LocalStack, StackConfig
from routekeel.streams.settings import Settings, load_settings
from routekeel.streams.topics import ensure_topics

from . import sdk_emit
from .load import Shape, write_events

CONTENDERS = ("routekeel", "loop", "faust")
FAUST_SHARE = 10  # stock Faust gets a tenth of the events: it is that much slower
console = Console(stderr=True)


def measure(name: str, environment: dict[str, str], events: int) -> dict[str, float]:
    """One run of one contender: {events_per_s, cpu_us_per_event}."""
    command = [sys.executable, "-m", "tests.bench.contenders", name, str(events)]
    done = subprocess.run(
        command,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-4000:]}")
    result = json.loads(done.stdout.strip().splitlines()[-1])
    return {
        "events_per_s": result["events"] / result["seconds"],
        "cpu_us_per_event": 1e6 * result["cpu_s"] / result["events"],
    }


def environment_for(settings: Settings, suffix: str, source: str, run: int) -> dict[str, str]:
    """Variables that give a contender topics and a group of its own, and the shared events."""
    topics = {
        "telemetry": f"{suffix}.telemetry",
        "weights": f"{suffix}.weights",
        "dlq": f"{suffix}.dlq",
        "logits": source,
    }
    made = {f"ROUTEKEEL_TOPICS__{name.upper()}": topic for name, topic in topics.items()}
    return {
        **os.environ,
        **made,
        "ROUTEKEEL_WORKER__APP_ID": f"{suffix}-{run}",
        "ROUTEKEEL_STACK__STATE_DIR": str(settings.stack.state_dir),
    }


def run_case(
    settings: Settings, shape: Shape, events: int, sessions: int, repeats: int
) -> dict[str, Any]:
    """All contenders on one shape."""
    source = f"bench.logits.{shape.tokens}-{shape.layers}-{shape.experts}"
    loading = load_settings(
        flags={"stack.state_dir": str(settings.stack.state_dir), "topics.logits": source}
    ).settings
    ensure_topics(loading)
    console.print(f"{shape}: writing {events:,} events of {sessions:,} sessions")
    megabytes = write_events(loading, shape, events, sessions, seed=1)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    for repeat in range(repeats):
        for name in CONTENDERS:
            environment = environment_for(settings, f"bench.{name}.{repeat}", source, repeat)
            names = {"topics.logits": source} | {
                f"topics.{t}": environment[f"ROUTEKEEL_TOPICS__{t.upper()}"]
                for t in ("telemetry", "weights", "dlq")
            }
            flags = names | {
                "stack.state_dir": str(settings.stack.state_dir),
                "worker.app_id": f"bench.{name}.{repeat}-{repeat}",
            }
            ensure_topics(load_settings(flags=flags).settings)
            share = events // FAUST_SHARE if name == "faust" else events
            runs[name].append(measure(name, environment, share))
            console.print(f"  {name:<10} {runs[name][-1]['events_per_s']:>10,.0f} events/s")
    median = {
        n: {k: statistics.median(r[k] for r in runs[n]) for k in runs[n][0]} for n in CONTENDERS
    }
    spread = {
        n: [min(r["events_per_s"] for r in runs[n]), max(r["events_per_s"] for r in runs[n])]
        for n in CONTENDERS
    }
    return {
        "shape": str(shape),
        "events": events,
        "sessions": sessions,
        "megabytes": megabytes,
        "events_per_s": {n: median[n]["events_per_s"] for n in CONTENDERS},
        "events_per_s_range": spread,
        "cpu_us_per_event": {n: median[n]["cpu_us_per_event"] for n in CONTENDERS},
    }


def print_cases(cases: list[dict[str, Any]]) -> None:
    """The table for people."""
    table = Table(title="one process each, same events and outputs, real broker", box=None)
    for title in ("shape", "contender", "events/s", "range", "CPU µs/event", "routekeel is"):
        table.add_column(title, justify="left" if title in ("shape", "contender") else "right")
    for case in cases:
        own = case["events_per_s"]["routekeel"]
        for name in CONTENDERS:
            low, high = case["events_per_s_range"][name]
            rate = case["events_per_s"][name]
            ratio = "" if name == "routekeel" else f"{own / rate:.2f}×"
            table.add_row(case["shape"], name, f"{rate:,.0f}", f"{low:,.0f}–{high:,.0f}",
                          f"{case['cpu_us_per_event'][name]:.1f}", ratio)  # fmt: skip
    Console().print(table)


def main() -> None:
    """Parse the arguments, run on a stack of its own, print and write the result."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--sessions", type=int, default=1_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path(".routekeel/benchmark.json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="routekeel-bench-") as folder:
        stack = LocalStack(StackConfig(state_dir=Path(folder) / "stack"))
        stack.up(("kafka", "registry"), on_event=lambda *event: console.print("  ", *event))
        try:
            settings = load_settings(
                flags={"stack.state_dir": str(Path(folder) / "stack")}
            ).settings
            cases = [
                run_case(
                    settings,
                    Shape(8, 4, 8),
                    arguments.events,
                    arguments.sessions,
                    arguments.repeats,
                )
            ]
            emit = sdk_emit.run(arguments.repeats, stack)
        finally:
            stack.down()
    versions = {
        name: version(name)
        for name in ("faust-streaming", "aiokafka", "confluent-kafka", "fastavro", "numba")
    }
    report = {
        "cases": cases,
        "sdk_emit": emit,
        "versions": versions,
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print_cases(cases)
    sdk_emit.print_cases(emit)


if __name__ == "__main__":
    main()
