"""How long a worker takes to own its partitions again: `python -m tests.bench.recovery`.

Writes the state log of many sessions to a broker of its own and times what a takeover times: from the
assignment until every partition has its state and its order of eviction. Cold (the whole log), warm
(a local database that only lacks the tail) and as a standby (which followed the log before).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from routekeel.infra.local.ports import any_free
from routekeel.infra.local.stack import LocalStack, StackConfig
from routekeel.operators.state import state_width
from routekeel.streams.app.changelog_topic import ChangelogTopic
from routekeel.streams.app.metrics import WorkerMetrics
from routekeel.streams.app.partitions import Partitions
from routekeel.streams.app.rocksdb_store import RocksDbStore
from routekeel.streams.settings import Settings, load_settings
from routekeel.streams.topics import ensure_topics
from routekeel.streams.topology.changelog import (
    ChangelogRecord,
    MemoryStore,
    StateStore,
)
from routekeel.streams.topology.config import TopologyConfig
from routekeel.streams.topology.outputs import OutputBuilder
from routekeel.streams.topology.partition import PartitionProcessor
from routekeel.streams.topology.records import Source
from routekeel.streams.topology.session import Producer, Request, Session
from routekeel.streams.topology.watermark import Watermark
from tests.stream.checkpoints import checkpoint_records

from .tables import recovery_sheet

CHECKPOINT_SESSIONS = 5_000
TAIL_SHARE = 50  # one session in so many changed after the local database was closed
TOPIC_ID = "bench"
FOLLOWED_EVERY_S = 0.1
console = Console(stderr=True)


@dataclass(frozen=True)
class Case:
    """So many sessions of L layers × E experts, each written so many times, over some partitions."""

    sessions: int
    layers: int
    experts: int
    writes: int
    partitions: int

    def __str__(self) -> str:
        return f"L={self.layers} E={self.experts} × {self.sessions:,}"


class LogWriter:
    """Writes checkpoints as a worker would have; `applied` is the last source offset per partition."""

    def __init__(self, case: Case, settings: Settings) -> None:
        self._case, self._log = case, ChangelogTopic(settings)
        rng = np.random.default_rng(1)
        width = state_width(case.experts)
        self._matrices = rng.normal(size=(64, case.layers, width)).astype("<f4")
        self._applied = dict.fromkeys(range(case.partitions), -1)
        self.records = self.bytes = 0

    async def write(self, sessions: range) -> None:
        """Each of these sessions once, in checkpoints."""
        for partition in self._applied:
            mine = [n for n in sessions if n % self._case.partitions == partition]
            for start in range(0, len(mine), CHECKPOINT_SESSIONS):
                records = list(self._checkpoint(partition, mine[start:][:CHECKPOINT_SESSIONS]))
                _, size = await self._log.write(partition, records)
                self.records, self.bytes = self.records + len(records), self.bytes + size

    def _checkpoint(self, partition: int, sessions: list[int]) -> Iterator[ChangelogRecord]:
        changes: dict[bytes, bytes | None] = {}
        for number in sessions:
            self._applied[partition] += 1
            changes[b"session-%d" % number] = self._session(self._applied[partition])
        mark = Watermark(TOPIC_ID, 0, self._applied[partition], self._applied[partition])
        return iter(checkpoint_records(changes, {}, mark))

    def _session(self, offset: int) -> bytes:
        case = self._case
        return Session(
            b"bench-model", b"r1", case.experts, tuple(range(case.layers)),
            self._matrices[offset % 64], last_offset=offset, touched_us=offset,
            producers=[Producer(b"worker-1", 1, offset)], requests=[Request(b"request-1", offset)],
        ).encode()  # fmt: skip


def fresh_worker(
    settings: Settings, case: Case, new_store: Callable[[int], StateStore]
) -> tuple[Partitions, WorkerMetrics]:
    """A worker's partitions, with real processors."""

    def new_processor(source: Source, store: StateStore) -> PartitionProcessor:
        config = TopologyConfig(sessions_max=case.sessions)
        return PartitionProcessor(source, config, dict, OutputBuilder(config, str, str), store)  # type: ignore[arg-type]

    metrics = WorkerMetrics()
    topic, log = settings.topics.logits, ChangelogTopic(settings)
    return Partitions(topic, log, new_store, new_processor, metrics), metrics


def value_of(metrics: WorkerMetrics, name: str) -> float:
    """A metric's present value."""
    return metrics.registry.get_sample_value(f"routekeel_{name}") or 0.0


async def take_over(case: Case, partitions: Partitions, metrics: WorkerMetrics) -> dict[str, float]:
    """Assign every partition to the worker; seconds until all are ready. Ends the worker."""
    started, cpu_started = time.monotonic(), time.process_time()
    mine = set(range(case.partitions))
    await partitions.assign(mine, TOPIC_ID)
    owned = [await partitions.get(partition) for partition in mine]
    seconds, cpu_s = time.monotonic() - started, time.process_time() - cpu_started
    sessions = sum(one.processor.sessions for one in owned if one is not None)
    assert sessions == case.sessions, f"{sessions} of {case.sessions} sessions came back"
    await partitions.close()
    read = value_of(metrics, "recovery_records_read_total")
    return {"seconds": seconds, "cpu_s": cpu_s, "records_read": read}


async def take_over_as_standby(
    settings: Settings, case: Case, writer: LogWriter
) -> dict[str, float]:
    """Follow the whole log, let the tail be written as the owner dies, take over."""
    partitions, metrics = fresh_worker(settings, case, lambda _: MemoryStore())
    await partitions.assign(set(), TOPIC_ID, range(case.partitions))
    while value_of(metrics, "worker_standby_records_total") < writer.records:  # noqa: ASYNC110
        await asyncio.sleep(FOLLOWED_EVERY_S)
    await partitions.revoke(set())
    await writer.write(range(0, case.sessions, TAIL_SHARE))
    return await take_over(case, partitions, metrics)


async def run_case(settings: Settings, case: Case, folder: Path) -> dict[str, Any]:
    """All kinds of takeover on one log."""
    ensure_topics(settings)
    writer = LogWriter(case, settings)
    for _ in range(case.writes):
        await writer.write(range(case.sessions))
    console.print(f"{case}: {writer.records:,} records, {writer.bytes / 2**20:,.0f} MiB")
    written = {"records": writer.records, "bytes": writer.bytes}
    memory = fresh_worker(settings, case, lambda _: MemoryStore())
    kinds = {"cold, memory": await take_over(case, *memory)}

    def database(partition: int) -> StateStore:
        return RocksDbStore(folder / f"{case.layers}-{case.experts}" / f"partition-{partition}")

    kinds["cold, rocksdb"] = await take_over(case, *fresh_worker(settings, case, database))
    await writer.write(range(0, case.sessions, TAIL_SHARE))
    kinds["warm, rocksdb"] = await take_over(case, *fresh_worker(settings, case, database))
    kinds["standby, memory"] = await take_over_as_standby(settings, case, writer)
    return {"case": str(case), **written, "kinds": kinds}


def run(state_dir: Path, sessions: int, large_sessions: int, writes: int, partitions: int) -> Any:
    """Both shapes on the broker of the stack in `state_dir`, each in topics of its own."""
    results = []
    for number, layers, experts in ((sessions, 4, 8), (large_sessions, 48, 128)):
        name = f"recovery-{layers}-{experts}"
        topics = ("logits", "telemetry", "weights", "policy", "alerts", "dlq")
        flags = {
            "stack.state_dir": str(state_dir),
            "topics.partitions": partitions,
            "worker.app_id": name,
            **{f"topics.{topic}": f"{name}.{topic}" for topic in topics},
        }
        settings = load_settings(flags=flags).settings
        case = Case(number, layers, experts, writes, partitions)
        with tempfile.TemporaryDirectory(prefix="routekeel-recovery-") as folder:
            results.append(asyncio.run(run_case(settings, case, Path(folder))))
    return results


def main() -> None:
    """Parse the arguments, run on a broker of its own, print and write the result."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.recovery", description=__doc__)
    parser.add_argument("--sessions", type=int, default=100_000, help="of L=4, E=8")
    parser.add_argument("--large-sessions", type=int, default=5_000, help="of L=48, E=128")
    parser.add_argument("--writes", type=int, default=3, help="times each session was written")
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--output", type=Path, default=Path(".routekeel/recovery.json"))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="routekeel-recovery-") as folder:
        config = StackConfig(
            state_dir=Path(folder) / "stack", kafka_port=any_free(), registry_port=any_free()
        )
        stack = LocalStack(config)
        stack.up(("kafka",), on_event=lambda *event: console.print("  ", *event))
        try:
            results = run(
                config.state_dir, arguments.sessions, arguments.large_sessions, arguments.writes,
                arguments.partitions,
            )  # fmt: skip
        finally:
            stack.down()
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    Console().print(recovery_sheet(results).table())


if __name__ == "__main__":
    main()
