"""The sink against what the store takes when the same Arrow batches are inserted directly.

`python -m tests.bench.sink --child` runs in a process of its own: the sink over filled topics, its
batches being kept; then the same bytes into fresh tables by as many threads as the sink uses, the sink
again, and the bytes again. The second run of the sink counts, against the mean of the direct ones before
and after it: within a minute this machine changes by more than sink and direct inserts differ. Every run
has a database of its own, which is dropped afterwards, so that no run pays for another's merges. At last
the sink with inserts that are answered at once, which is what it does alone.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

from rich.console import Console

from routekeel.schemas.clickhouse import name as quoted
from routekeel.streams.history.store import apply_schema, connect
from routekeel.streams.settings import Settings, load_settings
from routekeel.streams.sinks.items import ItemDecoder
from routekeel.streams.sinks.lease import LeaseTerms
from routekeel.streams.sinks.loop import INSERT_THREADS
from routekeel.streams.sinks.outcomes import Done
from routekeel.streams.sinks.progress import SinkResult
from routekeel.streams.sinks.run import run_sink
from routekeel.streams.sinks.store import TableStore

from .bench_topics import RunTopics
from .cases import Bench, measure
from .cores import can_part, store_apart
from .load import Shape, write_events

console = Console(stderr=True)


class Observed:
    """Keeps what the sink inserts, and when it had its first record and its last answer.

    With `store` False the inserts are answered at once, and none is made.
    """

    def __init__(self, store: bool = True) -> None:
        self.actions: list[Any] = []
        self.first_s = self.last_s = self.first_cpu_s = self.last_cpu_s = 0.0
        self._lock = threading.Lock()
        insert, decode = TableStore.insert, ItemDecoder.decode

        def observed_insert(tables: TableStore, action: Any) -> Any:
            outcome = insert(tables, action) if store else Done()
            with self._lock:
                self.actions.append(action if store else None)
                self.last_s, self.last_cpu_s = time.monotonic(), time.process_time()
            return outcome

        def observed_decode(decoder: ItemDecoder, records: Any) -> Any:
            if not self.first_s:
                self.first_s, self.first_cpu_s = time.monotonic(), time.process_time()
            return decode(decoder, records)

        self._undo = (insert, decode)
        TableStore.insert = observed_insert  # type: ignore[method-assign]
        ItemDecoder.decode = observed_decode  # type: ignore[method-assign]

    def stop(self) -> None:
        """Observe no more."""
        TableStore.insert, ItemDecoder.decode = self._undo  # type: ignore[method-assign]


def direct(settings: Settings, actions: list[Any]) -> float:
    """Rows a second of inserting the batches into fresh tables."""
    client = connect(settings.clickhouse, send_receive_timeout=60)
    apply_schema(client, settings.clickhouse)
    store = TableStore(client, settings.clickhouse.database, LeaseTerms.of(settings))
    began = time.monotonic()
    with ThreadPoolExecutor(INSERT_THREADS) as pool:
        outcomes = list(pool.map(store.insert, [replace(a, token=f"{a.token}d") for a in actions]))
    seconds = time.monotonic() - began
    if not all(isinstance(outcome, Done) for outcome in outcomes):
        raise SystemExit(f"the store refused a batch: {outcomes}")
    client.close()
    return sum(action.payload.rows for action in actions) / seconds


def sink(settings: Settings, store: bool = True) -> tuple[SinkResult, Observed]:
    """The sink over all that is in the topics."""
    observed = Observed(store)
    try:
        return run_sink(settings, until_idle_s=2.0), observed
    finally:
        observed.stop()


def stored_bytes(settings: Settings) -> int:
    """What the store has on its disk of all tables, compressed, right after the last insert."""
    section = settings.clickhouse
    client = connect(section, send_receive_timeout=60)
    query = "SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND database = {name:String}"
    found = client.query(query, parameters={"name": section.database}).result_rows
    client.close()
    return int(found[0][0])


@contextmanager
def fresh(settings: Settings, name: str) -> Iterator[Settings]:
    """The same with a group and a database of its own, which is dropped at the end."""
    section, group = settings.clickhouse, settings.sink
    own = section.model_copy(update={"database": f"{section.database}_{name}"})
    yield settings.model_copy(
        update={
            "clickhouse": own,
            "sink": group.model_copy(update={"group_id": f"{group.group_id}-{name}"}),
        }
    )
    client = connect(own, send_receive_timeout=60)
    client.command(f"DROP DATABASE {quoted(own.database)} SYNC")
    client.close()


def child() -> dict[str, float]:
    """Sink and direct inserts in turn, in this process."""
    settings = load_settings().settings
    with fresh(settings, "first") as its:
        actions = sink(its)[1].actions
    with fresh(settings, "before") as its:
        before = direct(its, actions)
    with fresh(settings, "sink") as its:
        result, observed = sink(its)
        stored = stored_bytes(its)
    with fresh(settings, "after") as its:
        after = direct(its, actions)
    with fresh(settings, "alone") as its:
        alone = sink(its, store=False)[1]
    rows = sum(result.rows.values())
    return {
        "cpu_us_per_row": (observed.last_cpu_s - observed.first_cpu_s) / rows * 1e6,
        "alone_rows_per_s": rows / (alone.last_s - alone.first_s),
        "rows": rows,
        "records": result.records,
        "stored_bytes": stored,
        "batches": len(observed.actions),
        "megabytes": sum(len(action.payload.data) for action in observed.actions) / 1e6,
        "rows_per_s": rows / (observed.last_s - observed.first_s),
        "direct_rows_per_s": (before + after) / 2,
    }


def run(bench: Bench, shape: Shape, events: int, sessions: int) -> dict[str, Any]:
    """Fill topics with this app, then both ways of storing them, as often as asked.

    Everything on the same cores, and (`apart`) with the store on cores of its own, in turn.
    """
    tag = f"bench-sink-{shape.key}"
    topics = RunTopics.make(bench.state_dir, tag, f"{tag}.logits")
    write_events(topics.settings, shape, events, sessions, seed=6)
    measure(bench, "routekeel", topics, events, shape)
    records = topics.ends(topics.settings.topics.weights) + events
    ways: dict[str, list[dict[str, float]]] = {"shared": []}
    if can_part():
        ways["apart"] = []
    for repeat in range(bench.repeats):
        for way, runs in ways.items():
            with store_apart(bench.stack) if way == "apart" else nullcontext():
                one = _one(topics, f"{tag}-{way}-{repeat}", records)
                runs.append({"events": events, **one})
            console.print(
                f"  {way}: sink {runs[-1]['rows_per_s']:,.0f} rows/s, directly "
                f"{runs[-1]['direct_rows_per_s']:,.0f}, alone {runs[-1]['alone_rows_per_s']:,.0f} "
                f"at {runs[-1]['cpu_us_per_row']:.1f} µs of CPU a row"
            )
    topics.remove([f"{tag}.logits"])
    return {"shape": str(shape), **{way: _summary(runs) for way, runs in ways.items()}}


def _one(topics: RunTopics, group: str, records: int) -> dict[str, float]:
    """One run of the child, into a database of its own."""
    environment = topics.environment() | {
        "ROUTEKEEL_CLICKHOUSE__DATABASE": group.replace("-", "_"),
        "ROUTEKEEL_SINK__GROUP_ID": group,
    }
    line = [sys.executable, "-m", "tests.bench.sink", "--child"]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the sink failed:\n{done.stderr[-4000:]}")
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    if found["records"] != records:
        raise SystemExit(f"the sink took {found['records']} records of {records}")
    return found


def _summary(runs: list[dict[str, float]]) -> dict[str, Any]:
    """Medians, and the sink's share of what the store takes directly."""
    shares = [one["rows_per_s"] / one["direct_rows_per_s"] for one in runs]
    return {
        **{key: statistics.median(one[key] for one in runs) for key in runs[0]},
        "share": statistics.median(shares),
        "share_range": [min(shares), max(shares)],
    }


if __name__ == "__main__":
    if sys.argv[1:] != ["--child"]:
        raise SystemExit("make benchmark runs this")
    print(json.dumps(child()))
