"""`python -m tests.bench.sizing`: what ten million routing decisions a second need, from the measured figures.

Reads .routekeel/benchmark.json and writes the table of docs/SCALING.md between its marks. Everything is by
proportion from what the benchmark measured for the same shape: cores by CPU per event, bytes by what a run
left on the broker and in the store, rows by the rate of a sink with cores of its own. What is assumed and
not measured are the constants below; the document names them.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .load import Shape
from .sheet import Sheet

DOCS = Path("docs/SCALING.md")
BEGIN, END = "<!-- sizing: begin -->\n", "<!-- sizing: end -->\n"
SHAPES = (Shape(8, 4, 8), Shape(1, 48, 128))
DECISIONS_PER_S = 10_000_000
LOADED = 0.6  # of what a core or a disk does flat out: the rest catches up after a restart
# Assumed: nothing here was measured on more than one machine, or over a network.
REPLICAS = 3
BROKER_CORES, STORE_CORES = 8, 16
BROKER_MB_PER_S = (
    500  # written by one broker, of its own and of others' partitions: disk or network
)
PARTITION_MB_PER_S = 10.0


@dataclass(frozen=True)
class Need:
    """What one shape needs at DECISIONS_PER_S; bytes before compression, but for what the brokers write."""

    shape: str
    events_per_s: float
    input_mb_per_s: float
    output_mb_per_s: float
    written_mb_per_s: float
    worker_cores: int
    partitions: int
    broker_cores: int
    rows_per_s: float
    sinks: int
    shards: int
    stored_tb_per_day: float

    @property
    def brokers_by_cpu(self) -> float:
        """Brokers that have the cores."""
        return self.broker_cores / BROKER_CORES

    @property
    def brokers_by_bytes(self) -> float:
        """Brokers that can write the bytes."""
        return REPLICAS * self.written_mb_per_s / BROKER_MB_PER_S / LOADED

    @property
    def brokers(self) -> str:
        """As many as both ask for, and which of them decides."""
        by_cpu, by_bytes = self.brokers_by_cpu, self.brokers_by_bytes
        return f"{math.ceil(max(by_cpu, by_bytes)):,} ({'CPU' if by_cpu > by_bytes else 'bytes'})"


def need_of(case: dict[str, Any], stored: dict[str, Any], shape: Shape, store_cores: int) -> Need:
    """Scale what was measured of one shape: its case, and the sink and a store of so many cores."""
    events = DECISIONS_PER_S / (shape.tokens * shape.layers)

    def mb_per_s(kind: str, *topics: str) -> float:
        return events * sum(case["bytes"][topic][kind] for topic in topics) / case["events"] / 1e6

    read = mb_per_s("plain", "logits")
    cores = events * case["cpu_us_per_event"]["routekeel"] / 1e6 / LOADED
    workers = events / case["events_per_s"]["routekeel"] / LOADED
    broker_s = events * case["broker_cpu_us_per_event"]["routekeel"] / 1e6
    rows = events * stored["rows"] / stored["events"]
    shard_rows_per_s = stored["direct_rows_per_s"] * STORE_CORES / store_cores
    return Need(
        shape=str(shape),
        events_per_s=events,
        input_mb_per_s=read,
        output_mb_per_s=mb_per_s("plain", "telemetry", "weights"),
        written_mb_per_s=mb_per_s("stored", *case["bytes"]),
        worker_cores=math.ceil(max(cores, workers)),
        partitions=max(2 * math.ceil(workers), math.ceil(read / PARTITION_MB_PER_S)),
        broker_cores=math.ceil(REPLICAS * broker_s / LOADED),
        rows_per_s=rows,
        sinks=math.ceil(rows / stored["alone_rows_per_s"] / LOADED),
        shards=math.ceil(rows / shard_rows_per_s / LOADED),
        stored_tb_per_day=events * 86_400 * stored["stored_bytes"] / stored["events"] / 1e12,
    )


def sheet(needs: list[Need], measured_cores: int) -> Sheet:
    """The table."""

    cells: dict[str, Callable[[Need], str]] = {
        "events/s": lambda n: f"{n.events_per_s:,.0f}",
        "logits in, MB/s before compression": lambda n: f"{n.input_mb_per_s:,.0f}",
        "telemetry and weights out, MB/s before compression": lambda n: f"{n.output_mb_per_s:,.0f}",
        "all topics as one replica stores them (lz4), MB/s": lambda n: f"{n.written_mb_per_s:,.0f}",
        "worker cores": lambda n: f"{n.worker_cores:,}",
        "partitions": lambda n: f"{n.partitions:,}",
        f"broker cores, {REPLICAS} replicas": lambda n: f"{n.broker_cores:,}",
        f"brokers by CPU, {BROKER_CORES} cores each": lambda n: f"{n.brokers_by_cpu:,.1f}",
        f"brokers by bytes, {REPLICAS} replicas, {BROKER_MB_PER_S} MB/s each": (
            lambda n: f"{n.brokers_by_bytes:,.1f}"
        ),
        "brokers, and what decides": lambda n: n.brokers,
        "rows/s into ClickHouse": lambda n: f"{n.rows_per_s:,.0f}",
        "sink processes": lambda n: f"{n.sinks:,}",
        f"ClickHouse shards of {STORE_CORES} cores, by what {measured_cores} take": (
            lambda n: f"{n.shards:,}"
        ),
        "stored in ClickHouse, TB/day": lambda n: f"{n.stored_tb_per_day:,.1f}",
    }
    rows = [(what, *(cell(n) for n in needs)) for what, cell in cells.items()]
    return Sheet("Ten million routing decisions a second", ("", *(n.shape for n in needs)), rows)


def sheet_of(report: dict[str, Any]) -> Sheet:
    """The table of a report."""
    cases = {case["shape"]: case for case in report["cases"]}
    sinks = {one["shape"]: one["shared"] for one in report["sink"]}
    cores = report["machine"]["cores"]
    needs = [need_of(cases[str(s)], sinks[str(s)], s, cores) for s in SHAPES]
    return sheet(needs, cores)


def write(table: Sheet, path: Path = DOCS) -> None:
    """Put the table between the document's marks."""
    text = path.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    path.write_text(before + BEGIN + table.markdown() + END + after, encoding="utf-8")


def main() -> None:
    """Read the report, print the table, put it into the document; that of a --quick report is only printed."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.sizing", description=__doc__)
    parser.add_argument("--report", type=Path, default=Path(".routekeel/benchmark.json"))
    report = json.loads(parser.parse_args().report.read_text(encoding="utf-8"))
    table = sheet_of(report)
    print(table.markdown())
    if not report["quick"]:
        write(table)


if __name__ == "__main__":
    main()
