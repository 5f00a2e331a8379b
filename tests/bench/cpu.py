"""Where this app's CPU goes, by sampling its stacks with py-spy from outside.

The main thread is sampled. Beside it there is the thread that sends outputs, whose time it has from
the system; what is left is that of the threads that fetch and that write the state log. A sample
belongs to the first rule that fits one of its frames, the innermost frame first.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from .bench_topics import RunTopics
from .cases import Bench, contender_command, measure
from .load import Shape, write_events

RATE = 200
SENDING, CLIENT = "send outputs: frame, compress", "fetching and state log threads"
ROWS = (
    "fetch and parse", "decode", "admission", "kernel", "gather and scatter state", "encode", "produce",
    "checkpoint", "event loop and the rest", SENDING, CLIENT,
)  # fmt: skip
# (words in a frame's "function (file)", row). Kept by words, so that a file may be split or renamed.
RULES: tuple[tuple[tuple[str, ...], str], ...] = (
    (("_run_compiled (", "operators/kernels"), "kernel"),
    (("aiokafka/", "faust/transport", "app/transport"), "fetch and parse"),
    (("app/changelog", "topology/changelog", "checkpoint", "rocksdb", "watermark"), "checkpoint"),
    (("app/output", "app/sender", "app/batch_sender", "app/record_batch", "topology/record_block"), "produce"),
    (("_write (routekeel/streams/wire", "_write (streams/wire", "numbers_of", "topology/output"), "encode"),
    (("topology/chunk", "decod", "check (", "_check (", "non_finite", "schemas/batch"), "decode"),
    (("_assemble (routekeel/streams/wire", "_assemble (streams/wire", "_collect_states", "wire/gather",
      "topology/execute", "operators/", "schemas/logits"), "gather and scatter state"),
    (("topology/", "wire/", "metrics"), "admission"),
)  # fmt: skip
# Starting, compiling and stopping: nobody's cost, as everywhere in this benchmark.
OUTSIDE = (
    "exercise_controller", "_assemble (routekeel/streams/app", "_assemble (streams/app", "warm_up",
    "_calm_garbage", "stop_app (", "_find_and_load", "_bootstrap_inner", "SpawnProcess", "require (",
    "runtime_file",
)  # fmt: skip


def classify(frames: list[str]) -> str | None:
    """The row of one stack, outermost frame first; None for what is outside the measured part.

    >>> classify(["_run (streams/app/run.py:90)", "apply (routekeel/streams/topology/partition.py:99)"])
    'admission'
    """
    if any(word in frame for frame in frames for word in OUTSIDE):
        return None
    if not any("_run (" in frame or "run_forever" in frame for frame in frames):
        return None
    for frame in reversed(frames):
        for words, row in RULES:
            if any(word in frame for word in words):
                return row
    return "event loop and the rest"


def where_cpu_goes(bench: Bench, shape: Shape, events: int, sessions: int) -> dict[str, Any]:
    """{"us_per_event": {row: …}, "share": {row: …}} of one run of this app."""
    source = f"bench-cpu.logits.{shape.key}"
    plain = RunTopics.make(bench.state_dir, f"bench-plain-{shape.key}", source)
    write_events(plain.settings, shape, events, sessions, seed=5)
    # The seconds come from a run that nobody looks into, the shares from one that is sampled.
    result = measure(bench, "routekeel", plain, events, shape)
    plain.remove()
    tag = f"bench-cpu-{shape.key}"
    topics = RunTopics.make(bench.state_dir, tag, source)
    with tempfile.TemporaryDirectory(prefix="routekeel-bench-") as folder:
        stacks = Path(folder) / "stacks"
        _sample(contender_command("routekeel", tag, events, shape), topics, stacks)
        samples: Counter[str] = Counter()
        unknown: Counter[str] = Counter()
        for line in stacks.read_text(encoding="utf-8").splitlines():
            stack, _, count = line.rpartition(" ")
            frames = stack.split(";")
            row = classify(frames)
            if row is not None:
                samples[row] += int(count)
            if row == "event loop and the rest":
                unknown[frames[-1]] += int(count)
    topics.remove([source])
    whole_us = result["cpu_us_per_event"]
    python_us = min(1e6 * result["main_thread_s"] / events, whole_us)
    total = sum(samples.values())
    cost = {row: python_us * samples[row] / total for row in ROWS}
    cost[SENDING] = min(1e6 * result["sending_s"] / events, whole_us - python_us)
    cost[CLIENT] = whole_us - python_us - cost[SENDING]
    return {
        "shape": str(shape),
        "events": events,
        "samples": total,
        "us_per_event": cost,
        "share": {row: us / whole_us for row, us in cost.items()},
        "rest": dict(unknown.most_common(8)),
    }


def _sample(command: list[str], topics: RunTopics, stacks: Path) -> None:
    spy = Path(sys.executable).parent / "py-spy"
    line = [
        str(spy),
        "record",
        "--rate",
        str(RATE),
        "--format",
        "raw",
        "--output",
        str(stacks),
        "--",
    ]
    done = subprocess.run(
        line + command,
        env=topics.environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    if not stacks.exists() or '{"events"' not in done.stdout:
        raise SystemExit(f"py-spy could not look into the worker:\n{done.stderr[-4000:]}")
