"""How much memory a worker's state takes, and whether it stays that way: `python -m tests.bench.soak`.

Chunks of very many sessions go through one partition in this process, with the memory store and no
broker, checkpoint after checkpoint. Every so often the resident memory is compared with the bytes of
live state, keys and values. Some sessions never come back and new ones take their place, so eviction
and tombstones are part of it.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from routekeel.schemas.registry import FixedSchemaIds
from routekeel.streams.topology.changelog import MemoryStore

from .one_partition import Feed, Parts, Soak, sessions_of
from .tables import soak_sheet

CHECKPOINT_BYTES = 64 * 2**20  # worker.checkpoint_bytes_max
CHECKPOINT_CHUNKS = 20_000  # about worker.checkpoint_interval_s
WARM_UP_SESSIONS = CHECKPOINT_CHUNKS  # the base holds what lies between two checkpoints
WARM_UP_CHUNKS = 2 * CHECKPOINT_CHUNKS
RATIO_MAX = 2.0
JUDGED_FROM_BYTES = (
    64 * 2**20
)  # with less state the allocator's own moods are most of the difference
DRIFT_MAX = 0.05
console = Console(stderr=True)


@dataclass
class Totals:
    """What went through."""

    chunks: int = 0
    evicted: int = 0
    tombstones: int = 0
    checkpoints: int = 0
    samples: list[dict[str, float]] = field(default_factory=list)


class Run:
    """One processor, fed and checkpointed; outputs and changelog records are counted and dropped."""

    def __init__(self, soak: Soak) -> None:
        self.soak, self.totals = soak, Totals()
        self.store = MemoryStore()
        ids = FixedSchemaIds()
        self._feed = Feed(soak, ids)
        self._processor = Parts(soak, ids).processor(self.store)
        self._offset = self._position = self._since = 0

    def apply(self, turns: Iterator[tuple[int, int]], count: int) -> None:
        """The next `count` chunks as one batch; a checkpoint where the worker would make one."""
        batch = [self._feed.record(self._offset + index, *next(turns)) for index in range(count)]
        counts = self._processor.apply(batch).counts
        self._offset += count
        self.totals.chunks += count
        self.totals.evicted += counts.evicted_cap + counts.evicted_idle
        self._since += count
        if self._since >= CHECKPOINT_CHUNKS or self._processor.dirty_bytes >= CHECKPOINT_BYTES:
            self.checkpoint()

    def checkpoint(self) -> None:
        """As the worker does, without a broker."""
        records = self._processor.checkpoint()
        for _ in records.blocks():
            """As they would be sent."""
        self._position += len(records)
        self.totals.tombstones += records.tombstones
        self.totals.checkpoints += 1
        self._processor.checkpointed(self._position)
        self._since = 0

    def live_bytes(self) -> int:
        """The bytes of every session, key and value."""
        return sum(len(key) + len(value) for key, value in self.store.items())


def rss() -> int:
    """This process's resident memory."""
    return int(psutil.Process().memory_info().rss)


def soak_run(soak: Soak) -> dict[str, Any]:
    """Warm up, take the base, soak; the figures."""
    warm = Run(Soak(WARM_UP_SESSIONS, 0, soak.tokens, soak.layers, soak.experts, soak.batch, 0.0))
    turns = sessions_of(warm.soak)
    while warm.totals.chunks < WARM_UP_CHUNKS:
        warm.apply(turns, soak.batch)
    warm.checkpoint()
    del warm
    gc.collect()
    base = rss()
    run, turns, started = Run(soak), sessions_of(soak), time.monotonic()
    sample_every = max(soak.batch, min(soak.sessions, soak.chunks // 20))
    due = soak.sessions  # before that the state grows, and is not the whole
    while run.totals.chunks < soak.chunks:
        run.apply(turns, min(soak.batch, soak.chunks - run.totals.chunks))
        if run.totals.chunks >= due:
            run.checkpoint()
            due += sample_every
            live, resident = run.live_bytes(), rss()
            sample = {"chunks": run.totals.chunks, "rss": resident, "live": live,
                      "ratio": (resident - base) / live}  # fmt: skip
            run.totals.samples.append(sample)
            console.print(
                f"{sample['chunks']:>12,} chunks  {resident / 2**20:8,.0f} MiB resident  "
                f"{live / 2**20:8,.0f} MiB live  {sample['ratio']:.2f}×"
            )
    seconds = time.monotonic() - started
    samples = run.totals.samples
    settled = samples[len(samples) // 4 :]
    drift = max(s["rss"] for s in settled) / settled[0]["rss"] - 1
    ratio = max(s["ratio"] for s in samples)
    return {
        "soak": asdict(soak), "base_bytes": base, **asdict(run.totals), "seconds": seconds,
        "chunks_per_s": run.totals.chunks / seconds, "drift": drift, "ratio": ratio,
        "broken": broken(ratio, drift, samples[-1]["live"]),
    }  # fmt: skip


def broken(ratio: float, drift: float, live_bytes: int) -> list[str]:
    """Which bounds these figures break, as sentences."""
    found = []
    if live_bytes >= JUDGED_FROM_BYTES and ratio > RATIO_MAX:
        found.append(
            f"above the base it takes {ratio:.2f}× the live state, more than {RATIO_MAX}×."
        )
    if drift > DRIFT_MAX:
        found.append(f"it grows by {drift:.1%} after the first quarter, more than {DRIFT_MAX:.0%}.")
    return found


def run_apart(sessions: int, chunks: int) -> dict[str, Any]:
    """The same in a process of its own, whose memory nothing else has used."""
    with tempfile.TemporaryDirectory(prefix="routekeel-soak-") as folder:
        output = Path(folder) / "soak.json"
        line = [sys.executable, "-m", "tests.bench.soak", "--sessions", str(sessions)]
        line += ["--chunks", str(chunks), "--output", str(output)]
        done = subprocess.run(line, stdout=subprocess.DEVNULL, check=False)
        # 1 says that a bound was broken, and which is in the result; but so does an exception end.
        if done.returncode not in (0, 1) or not output.exists():
            raise SystemExit(f"the soak ended with {done.returncode}")
        found: dict[str, Any] = json.loads(output.read_text(encoding="utf-8"))
        return found


def main() -> int:
    """Parse the arguments, run, print and write the result; 1 when a bound is broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.soak", description=__doc__)
    parser.add_argument("--sessions", type=int, default=1_000_000)
    parser.add_argument("--chunks", type=int, default=10_000_000)
    parser.add_argument("--tokens", type=int, default=1)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--experts", type=int, default=4)
    parser.add_argument("--batch", type=int, default=5_000)
    parser.add_argument("--churn", type=float, default=0.05, help="share of new sessions per round")
    parser.add_argument("--output", type=Path, default=Path(".routekeel/soak.json"))
    options = vars(parser.parse_args())
    output: Path = options.pop("output")
    result = soak_run(Soak(**options))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    Console().print(soak_sheet(result).table())
    return int(bool(result["broken"]))


if __name__ == "__main__":
    sys.exit(main())
