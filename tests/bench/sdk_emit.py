"""What `emit_logits` costs the engine's thread: broker healthy, absent, and accepting but silent.

`python -m tests.bench.sdk_emit` prints medians and tails beside a plain copy of the same bytes, each
scenario in a process of its own: a tight loop, where the byte budget fills and chunks are dropped,
and 2,000 emits a second, as an engine does it. Accepted and dropped emits are told apart: a drop costs
a fraction of an emit, and most of a tight loop's are drops.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from confluent_kafka.admin import AdminClient, NewTopic
from rich.console import Console

from routekeel.infra.local.stack import LocalStack, StackConfig

from .tables import emit_sheet

SHAPE = (8, 48, 16)  # 12,288 bytes of float16
TIGHT, PACED, RATE = 20_000, 6_000, 2_000
WARM_UP = 2_000
TOPIC = "bench.emit"
SCENARIOS = ("healthy", "no broker", "hanging broker")
console = Console(stderr=True)


def percentiles(ns: list[int]) -> dict[str, float]:
    """How many emits, and their p50, p99 and p99.9 in µs. At least one."""
    values = np.percentile(np.array(ns) / 1e3, [50, 99, 99.9])
    names = ("p50_us", "p99_us", "p999_us")
    return {"emits": len(ns), **{n: float(v) for n, v in zip(names, values, strict=True)}}


def by_outcome(load: str, emits: list[tuple[bool, int]]) -> dict[str, dict[str, float]]:
    """The percentiles of all (accepted, ns), of the accepted and of the dropped, where there are any."""
    accepted, dropped = ([ns for taken, ns in emits if taken is it] for it in (True, False))
    kinds = {load: accepted + dropped, f"{load}_accepted": accepted, f"{load}_dropped": dropped}
    return {kind: percentiles(ns) for kind, ns in kinds.items() if ns}


def child(servers: str, registry: str, topic: str) -> dict[str, Any]:
    """Measure one scenario in this process: what every kind of emit cost."""
    from routekeel import Producer

    rng = np.random.default_rng(0)
    logits = [rng.normal(size=SHAPE).astype("<f2") for _ in range(64)]

    def producer_of() -> Any:
        # A fixed schema id: without a broker there may be no registry either.
        names = {"model": "bench", "backend": "bench", "top_k": 2, "schema_id": 1}
        return Producer(bootstrap_servers=servers, registry_url=registry, topic=topic, **names)

    producer = producer_of()
    clock = time.perf_counter_ns
    tight: list[tuple[bool, int]] = []
    paced: list[tuple[bool, int]] = []
    copied: list[int] = []
    for index in range(WARM_UP + TIGHT):
        chunk = logits[index % 64]
        before = clock()
        taken = producer.emit_logits("session", chunk, position_start=8 * index)
        tight.append((taken, clock() - before))
    for index in range(WARM_UP + TIGHT):
        chunk = logits[index % 64]
        before = clock()
        _ = chunk.tobytes()
        copied.append(clock() - before)
    producer.close(5.0)
    producer = producer_of()
    for index in range(WARM_UP // 10):
        producer.emit_logits("paced", logits[index % 64], position_start=8 * index)
    started = clock()
    for index in range(PACED):
        due = started + index * 1_000_000_000 // RATE
        while clock() < due:
            pass  # waiting by sleeping would measure the processor's wake-up, not the emit
        before = clock()
        taken = producer.emit_logits("paced", logits[index % 64], position_start=8 * index)
        paced.append((taken, clock() - before))
    producer.close(1.0)
    return {
        **by_outcome("tight", tight[WARM_UP:]),
        **by_outcome("paced", paced),
        "copy": percentiles(copied[WARM_UP:]),
    }


def hanging() -> socket.socket:
    """A server that accepts and never says a word."""
    server = socket.create_server(("127.0.0.1", 0))
    kept: list[socket.socket] = []

    def accept() -> None:
        while True:
            try:
                kept.append(server.accept()[0])
            except OSError:
                return

    threading.Thread(target=accept, daemon=True).start()
    return server


def run_child(servers: str, registry: str) -> dict[str, Any]:
    """One scenario in a fresh process."""
    line = [sys.executable, "-m", "tests.bench.sdk_emit", "--child", servers, registry]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ROUTEKEEL_")}
    done = subprocess.run(line, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def run(repeats: int, stack: LocalStack) -> dict[str, Any]:
    """All scenarios, the repeat with the median tight loop of each: {"shape", "cases": [...]}."""
    endpoints = stack.up(("kafka", "registry"))
    admin = AdminClient({"bootstrap.servers": endpoints.kafka_bootstrap})
    admin.create_topics([NewTopic(TOPIC, 4, 1)])[TOPIC].result(30)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        nobody = f"127.0.0.1:{probe.getsockname()[1]}"
    server = hanging()
    silent = f"127.0.0.1:{server.getsockname()[1]}"
    addresses = dict(zip(SCENARIOS, (endpoints.kafka_bootstrap, nobody, silent), strict=True))
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in SCENARIOS}
    for _ in range(repeats):
        for name in SCENARIOS:
            runs[name].append(run_child(addresses[name], endpoints.registry_url))
            console.print(f"  {name:<15} {runs[name][-1]['tight']['p50_us']:6.1f} µs")
    server.close()
    cases = []
    for name in SCENARIOS:
        ordered = sorted(runs[name], key=lambda one: one["tight"]["p50_us"])
        cases.append({"broker": name, "kinds": ordered[len(ordered) // 2]})
    return {"bytes": 2 * int(np.prod(SHAPE)), "rate": RATE, "cases": with_ratios(cases)}


def with_ratios(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The cases, each with its medians over the healthy broker's (the first case), per kind of emit."""
    healthy = cases[0]["kinds"]

    def over(kinds: dict[str, dict[str, float]]) -> dict[str, float]:
        both = [kind for kind in kinds if kind in healthy]
        return {kind: kinds[kind]["p50_us"] / healthy[kind]["p50_us"] for kind in both}

    return [case | {"over_healthy": over(case["kinds"])} for case in cases]


def main() -> None:
    """Parse the arguments; with --child, measure and print one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.sdk_emit", description=__doc__)
    parser.add_argument("--child", nargs=2, metavar=("SERVERS", "REGISTRY"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(child(*arguments.child, TOPIC)))
        return
    with tempfile.TemporaryDirectory(prefix="routekeel-bench-") as folder:
        stack = LocalStack(StackConfig(state_dir=Path(folder) / "stack"))
        try:
            report = run(arguments.repeats, stack)
        finally:
            stack.down()
    if arguments.json:
        print(json.dumps(report))
    else:
        Console().print(emit_sheet(report).table())


if __name__ == "__main__":
    main()
