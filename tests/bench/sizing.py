"""`python -m tests.bench.sizing`: what ten million routing decisions a second need, from the measured figures.

Reads .routekeel/benchmark.json and writes the tables of docs/SCALING.md between its marks. Nothing is
extrapolated but by proportion: cores by CPU per event, bytes by record size, rows by the rate of a sink
with cores of its own.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from routekeel.streams.driver import TopologyDriver
from routekeel.streams.topology.config import TopologyConfig

from .load import Shape
from .tables import Sheet

DOCS = Path("docs/SCALING.md")
BEGIN, END = "<!-- sizing: begin -->\n", "<!-- sizing: end -->\n"
DECISIONS_PER_S = 10_000_000
LOADED = 0.6  # of what a core does flat out: the rest catches up after a restart
PARTITION_MB_PER_S = 10.0
ROW_BYTES = 126  # of telemetry in ClickHouse, compressed (measured at 10 million rows)
BROKER_CORES, STORE_CORES, REPLICAS = 8, 16, 3


@dataclass(frozen=True)
class Need:
    """What one shape needs at DECISIONS_PER_S."""

    shape: str
    events_per_s: float
    input_mb_per_s: float
    output_mb_per_s: float
    worker_cores: int
    partitions: int
    broker_cores: int
    rows_per_s: float
    sinks: int
    stored_gb_per_day: float


def record_bytes(shape: Shape) -> tuple[float, float]:
    """Bytes of an input record and of what it leads to, Weights by the default cadence."""
    from tests.stream.chunks import chunk_fields

    driver = TopologyDriver(TopologyConfig(), compiled=True)
    count = 64
    for index in range(count):
        driver.append(
            chunk_fields("session", index * shape.tokens, shape.tokens, layers=list(range(shape.layers)),
                         experts=shape.experts, sequence=index)
        )  # fmt: skip
    driver.run()
    sent = sum(len(output.telemetry) + len(output.weights or b"") for output in driver.sent)
    return sum(len(record.value or b"") for record in driver.log) / count, sent / count


def need_of(case: dict[str, Any], shape: Shape, rows_per_s: float) -> Need:
    """Scale one measured case."""
    events = DECISIONS_PER_S / (shape.tokens * shape.layers)
    read, written = record_bytes(shape)
    cores = events * case["cpu_us_per_event"]["routekeel"] / 1e6 / LOADED
    workers = events / case["events_per_s"]["routekeel"] / LOADED
    partitions = max(2 * math.ceil(workers), math.ceil(events * read / 1e6 / PARTITION_MB_PER_S))
    rows = events * shape.layers
    return Need(
        shape=str(shape),
        events_per_s=events,
        input_mb_per_s=events * read / 1e6,
        output_mb_per_s=events * written / 1e6,
        worker_cores=math.ceil(max(cores, workers)),
        partitions=partitions,
        broker_cores=math.ceil(
            REPLICAS * events * case["broker_cpu_us_per_event"]["routekeel"] / 1e6 / LOADED
        ),
        rows_per_s=rows,
        sinks=math.ceil(rows / rows_per_s / LOADED),
        stored_gb_per_day=rows * 86_400 * ROW_BYTES / 1e9,
    )


def sheet(needs: list[Need], direct_rows_per_s: float) -> Sheet:
    """The table."""

    def row(what: str, values: list[str]) -> tuple[str, ...]:
        return (what, *values)

    rows = [
        row("events/s", [f"{n.events_per_s:,.0f}" for n in needs]),
        row("logits in, MB/s", [f"{n.input_mb_per_s:,.0f}" for n in needs]),
        row("telemetry and weights out, MB/s before compression", [f"{n.output_mb_per_s:,.0f}" for n in needs]),
        row("worker cores", [f"{n.worker_cores:,}" for n in needs]),
        row("partitions", [f"{n.partitions:,}" for n in needs]),
        row(f"broker cores, {REPLICAS} replicas", [f"{n.broker_cores:,}" for n in needs]),
        row(f"brokers of {BROKER_CORES} cores", [f"{math.ceil(n.broker_cores / BROKER_CORES):,}" for n in needs]),
        row("telemetry rows/s", [f"{n.rows_per_s:,.0f}" for n in needs]),
        row("sink processes", [f"{n.sinks:,}" for n in needs]),
        row("ClickHouse shards (what 2 cores take, scaled to 16)",
            [f"{math.ceil(n.rows_per_s / (direct_rows_per_s * STORE_CORES / 2) / LOADED):,}" for n in needs]),
        row("telemetry stored, TB/day", [f"{n.stored_gb_per_day / 1000:,.1f}" for n in needs]),
    ]  # fmt: skip
    return Sheet("Ten million routing decisions a second", ("", *(n.shape for n in needs)), rows)


def main() -> None:
    """Read the report, print the table, put it into the document."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.sizing", description=__doc__)
    parser.add_argument("--report", type=Path, default=Path(".routekeel/benchmark.json"))
    arguments = parser.parse_args()
    report = json.loads(arguments.report.read_text(encoding="utf-8"))
    shapes = (Shape(8, 4, 8), Shape(1, 48, 128))
    cases = {case["shape"]: case for case in report["cases"]}
    needs = [
        need_of(cases[str(s)], s, report["sink"]["shared"]["alone_rows_per_s"]) for s in shapes
    ]
    table = sheet(needs, report["sink"]["shared"]["direct_rows_per_s"]).markdown()
    print(table)
    text = DOCS.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    DOCS.write_text(before + BEGIN + table + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
