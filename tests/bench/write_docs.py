"""Writes docs/BENCHMARKS.md from a report: every number in it comes from the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .tables import sheets
from .worse import worse

DOCS = Path(__file__).resolve().parents[2] / "docs" / "BENCHMARKS.md"

HEAD = """# Benchmarks

Written by `make benchmark`; do not edit. Numbers are medians of {repeats} interleaved runs with the range \
beside them, measured on {date} on one machine: {processor}, {cores} cores, {memory_gib} GiB, {system}, \
Python {python}, load {load_before} before the start, at commit {commit}. The broker (Kafka, one node, \
default settings of `routekeel up`) shares the cores with whoever is measured.

    make benchmark            # everything here, and .routekeel/benchmark.json
    make benchmark QUICK=1    # a try of everything with few events; writes no document
    make benchmark ONLY=sink  # one section again, the rest as it was

Packages: {packages}.

## What is compared

Every contender runs alone in one process against the same broker, reads the same Avro events from the \
same topic of {partitions} partitions, keeps a state per session, runs the same compiled kernel and writes \
the same Telemetry and Weights records (Weights for every {every} tokens of a request and for a session's \
first chunk, the session's exact state in them for every {state_every} tokens and at that \
first chunk). Measured is from the first event in hand to the last durable output: starting, compiling, \
joining a group and stopping count for nobody. After every run the output topics must hold exactly one \
Telemetry record per event and the right number of Weights, or the benchmark stops; in all records \
of ten sessions in each contender's first run the kernel's numbers must be the same bytes for all, and the state \
there or missing alike.

{configured}
quix, bytewax and faust hand over one event at a time. For them the kernel is called directly with \
arrays that are made once per shape, and nothing is built per event that does not change.

The sink is measured from the first record in hand to the last answer, between two runs of direct inserts \
of the same batches by as many threads, each into a database of its own. On shared cores the store alone \
uses all of them, so the sink's own CPU comes out of the store's share whatever the sink does; with the \
store on cores of its own it is seen whether the sink keeps it busy.

What the state log and the weights cost is read back from the broker after every run of routekeel: keys, \
values and headers before compression, of all topics alike. Shown is the run with the largest state log.

A worker applies all its partitions in one thread. What a second one would give is measured by itself, \
with batches of two partitions in memory.

"""


CONFIGURED = (
    ("contender", "state log", "how it is configured, and why"),
    ("---", "---", "---"),
    ("routekeel", "changelog topic, a checkpoint every {checkpoint_s:g} s", "its defaults"),
    (
        "loop",
        "none: a crash loses the state",
        "confluent-kafka `consume`, fastavro, a dict; one kernel call per batch of up to 5,000 events or "
        "16 MiB of logits; lz4, idempotent, linger as routekeel. What an expert writes without a framework",
    ),
    (
        "quix",
        "RocksDB and a changelog topic, at its default commit interval of 5 s",
        "`apply(stateful=True)` with the state as bytes, one chain without branches (a branch copies "
        "values), at-least-once; librdkafka set as the loop's",
    ),
    (
        "bytewax",
        "recovery in SQLite, at its default epoch of 10 s",
        "`stateful_map`, its own Kafka connectors, librdkafka set as the loop's; batches for what needs no "
        "state, both outputs through one sink; the state changes in place and only snapshots copy it",
    ),
    (
        "faust",
        "a table with its changelog topic, written with every event",
        "stock agent, `async for event in stream.events()`, a tenth of the events, memory store, "
        "no leader topic, no compression: "
        "its defaults",
    ),
)


def write(report: dict[str, Any], path: Path = DOCS) -> None:
    """Write the document."""
    packages = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    facts = {**report["machine"], **report["facts"]}
    rows = "\n".join(f"| {' | '.join(row)} |" for row in CONFIGURED).format(**facts)
    parts = [HEAD.format(packages=packages, configured=rows + "\n", **facts), "## Results\n"]
    for name, found in report["again"].items():
        parts.append(
            f"Measured again by itself (`--only {name}`): {found['date']}, commit {found['commit']}.\n"
        )
    parts += [sheet.markdown() for sheet in sheets(report)]
    behind = worse(report)
    parts.append("## What is worse here\n")
    parts += [f"- {sentence}" for sentence in behind] or ["Nothing in the tables."]
    parts.append(
        "\nBeyond the numbers: the loop and the peers check none of what routekeel checks (repeats, gaps, bad "
        "records, schema ids), so that part of its cost buys what they do not have; it needs its topics to share "
        "one number of partitions; and Bytewax and Quix Streams take any Python code as an operator, which this "
        "app does not. Broker and contender share the machine, so absolute rates are lower than with a "
        "broker elsewhere, and the broker's CPU here includes idling while a contender starts."
    )
    path.write_text("\n".join(parts) + "\n", encoding="utf-8")
