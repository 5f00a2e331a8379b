"""`make benchmark`: this app against a plain loop, Quix Streams, Bytewax and stock Faust in one run on the
real broker, and what its parts cost alone.

Prints tables, writes .routekeel/benchmark.json and, where asked for, docs/BENCHMARKS.md. `--quick` does
everything with few events: it shows that all of it works, and its numbers mean nothing. `--only sink`
measures one section again and keeps the rest of the last report.
"""

from __future__ import annotations

import argparse
import json
import signal
import tempfile
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from routekeel.infra.local.stack import LocalStack, StackConfig
from routekeel.streams.settings import Settings, load_settings

from . import cpu, exponential, recovery, scaling, sdk_emit, sink, soak, threads, write_docs
from .cadence import Every
from .cases import CONTENDERS, Bench, run_case
from .load import Shape
from .machine import machine, versions
from .tables import sheets

SMALL = Shape(8, 4, 8)
LARGE = (Shape(1, 48, 128), Shape(1, 48, 128, top_m=16))
console = Console(stderr=True)


@dataclass(frozen=True)
class Sizes:
    """How many events each measurement gets."""

    repeats: int
    small: int
    large: int
    small_sessions: int
    large_sessions: int
    scaling: int
    session_counts: tuple[int, ...]
    workers: int
    sink: int
    cpu: int
    exponential: tuple[int, int]
    threads: tuple[int, int]
    recovery: tuple[int, int]
    soak: tuple[int, int]


FULL = Sizes(
    repeats=3, small=120_000, large=8_000, small_sessions=1_000, large_sessions=200, scaling=450_000,
    session_counts=(10**3, 10**4, 10**5, 10**6), workers=200_000, sink=300_000, cpu=250_000,
    exponential=(2_000, 8), threads=(4, 8),
    recovery=(100_000, 5_000), soak=(1_000_000, 10_000_000),
)  # fmt: skip
QUICK = Sizes(
    repeats=1, small=3_000, large=300, small_sessions=300, large_sessions=50, scaling=2_000,
    session_counts=(100, 1_000), workers=3_000, sink=3_000, cpu=10_000,
    exponential=(100, 1), threads=(1, 1),
    recovery=(2_000, 100), soak=(2_000, 20_000),
)  # fmt: skip


SECTIONS = (
    "cases", "cpu", "exponential", "threads", "sessions", "workers", "sink", "recovery", "soak", "sdk_emit",
)  # fmt: skip
Section = Callable[[], Any]


def sections(bench: Bench, sizes: Sizes) -> dict[str, tuple[str, Section]]:
    """Every measurement by its name in the report: what to say of it, and the measurement."""
    cpu_of = cpu.where_cpu_goes
    return {
        "cases": (
            "all contenders",
            lambda: [
                run_case(bench, SMALL, sizes.small, sizes.small_sessions),
                *(run_case(bench, one, sizes.large, sizes.large_sessions) for one in LARGE),
            ],
        ),
        "cpu": (
            "where the CPU goes",
            lambda: [
                cpu_of(bench, SMALL, sizes.cpu, sizes.small_sessions),
                cpu_of(bench, LARGE[0], sizes.large, sizes.large_sessions),
            ],
        ),
        "exponential": ("the exponential", lambda: exponential.measure(*sizes.exponential)),
        "threads": (
            "a second thread",
            lambda: threads.run((SMALL, LARGE[0]), *sizes.threads),
        ),
        "sessions": (
            "cost by sessions",
            lambda: scaling.cost_by_sessions(bench, SMALL, sizes.scaling, sizes.session_counts),
        ),
        "workers": (
            "two workers against one",
            lambda: scaling.one_and_two(bench, SMALL, sizes.workers, sizes.small_sessions),
        ),
        "sink": (
            "the sink against the store",
            lambda: [
                sink.run(bench, SMALL, sizes.sink, sizes.small_sessions),
                sink.run(bench, LARGE[0], sizes.large, sizes.large_sessions),
            ],
        ),
        "recovery": (
            "taking over",
            lambda: recovery.run(bench.state_dir, *sizes.recovery, writes=3, partitions=4),
        ),
        "soak": ("memory", lambda: soak.run_apart(*sizes.soak)),
        "sdk_emit": ("the SDK's emit", lambda: sdk_emit.run(bench.repeats, bench.stack)),
    }


def last_report(path: Path, wanted: Collection[str]) -> dict[str, Any]:
    """The report that is kept but for the `wanted` sections. Raises SystemExit where there is none to keep."""
    if unknown := sorted(set(wanted) - set(SECTIONS)):
        raise SystemExit(f"no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    if set(wanted) == set(SECTIONS):
        return {}
    if not path.exists():
        raise SystemExit(f"--only keeps the rest of {path}, which is missing: run everything first")
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if report["quick"] or report["versions"] != versions():
        raise SystemExit(f"{path} has other versions or few events: run everything again")
    return report


def facts(settings: Settings, sizes: Sizes) -> dict[str, Any]:
    """What the document says of the settings."""
    every = Every.of(settings)
    return {
        "repeats": sizes.repeats,
        "partitions": settings.topics.partitions,
        "every": every.tokens,
        "state_every": every.state_tokens,
        "checkpoint_s": settings.worker.checkpoint_interval_s,
    }


def show(report: dict[str, Any]) -> None:
    """The tables for people."""
    for sheet in sheets(report):
        Console().print(sheet.table())


def main() -> None:
    """Parse the arguments, run on a stack of its own, print and write the result."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few events, one repeat")
    parser.add_argument("--write-docs", action="store_true", help="write docs/BENCHMARKS.md")
    parser.add_argument("--contenders", default=",".join(CONTENDERS))
    parser.add_argument("--output", type=Path, default=Path(".routekeel/benchmark.json"))
    names = ",".join(SECTIONS)
    parser.add_argument("--only", default=names, help=f"sections to measure again, of {names}")
    arguments = parser.parse_args()
    wanted = arguments.only.split(",")
    kept = last_report(arguments.output, wanted)
    if arguments.quick and arguments.write_docs:
        parser.error("the numbers of --quick mean nothing: they do not go into the document")
    sizes = QUICK if arguments.quick else FULL
    before = machine()
    # As Ctrl-C: the stack is taken down whoever ends this.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="routekeel-bench-") as folder:
        state_dir = Path(folder) / "stack"
        stack = LocalStack(StackConfig(state_dir=state_dir))
        try:
            stack.up(on_event=lambda *event: console.print("  ", *event))
            settings = load_settings(flags={"stack.state_dir": str(state_dir)}).settings
            contenders = tuple(arguments.contenders.split(","))
            bench = Bench(stack, state_dir, sizes.repeats, contenders)
            measured = {}
            for name, (what, section) in sections(bench, sizes).items():
                if name in wanted:
                    console.print(what)
                    measured[name] = section()
        finally:
            stack.down()
    report = {
        "facts": facts(settings, sizes),
        "sizes": asdict(sizes),
        "versions": versions(),
        "machine": before,
        "quick": arguments.quick,
        **kept,
        **measured,
    }
    # What was measured in another run than the rest, and when.
    report["again"] = {**kept.get("again", {}), **dict.fromkeys(wanted, before)} if kept else {}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    show(report)
    if arguments.write_docs:
        write_docs.write(report)
        console.print(f"wrote {write_docs.DOCS}")


if __name__ == "__main__":
    main()
