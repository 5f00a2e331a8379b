"""Where this app's CPU goes, by sampling its stacks with py-spy from outside.

Python threads are sampled, librdkafka's are not: what the process used beyond its Python threads is
theirs. A sample belongs to the first rule that fits one of its frames, the innermost frame first.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from .bench_topics import RunTopics
from .cases import Bench, contender_command
from .load import Shape, write_events

RATE = 400
ROWS = (
    "fetch and parse", "decode", "admission", "kernel", "gather and scatter state", "encode", "produce",
    "checkpoint", "event loop and the rest", "Kafka client's threads",
)  # fmt: skip
# (words in a frame's "function (file)", row). Kept by words, so that a file may be split or renamed.
RULES: tuple[tuple[tuple[str, ...], str], ...] = (
    (("_run_compiled (", "operators/kernels"), "kernel"),
    (("aiokafka/", "faust/transport", "app/transport"), "fetch and parse"),
    (("app/changelog", "topology/changelog", "checkpoint", "rocksdb", "watermark"), "checkpoint"),
    (("app/output", "_send (", "_hand_over ("), "produce"),
    (("topology/output", "topology/weights", "topology/telemetry", "encode"), "encode"),
    (("topology/chunk", "decod", "_check (", "non_finite", "schemas/batch"), "decode"),
    (("topology/execute", "topology/arena", "operators/", "schemas/logits"), "gather and scatter state"),
    (("topology/", "metrics"), "admission"),
)  # fmt: skip
# Starting, compiling and stopping: nobody's cost, as everywhere in this benchmark.
OUTSIDE = (
    "exercise_controller", "_assemble (", "_calm_garbage", "_stop_app (", "_find_and_load", "_bootstrap_inner",
    "SpawnProcess", "require (", "_write_runtime_file",
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
    tag = f"bench-cpu-{shape.key}"
    topics = RunTopics.make(bench.state_dir, tag, f"{tag}.logits")
    write_events(topics.settings, shape, events, sessions, seed=5)
    with tempfile.TemporaryDirectory(prefix="routekeel-bench-") as folder:
        stacks = Path(folder) / "stacks"
        result = _profiled(contender_command("routekeel", tag, events, shape), topics, stacks)
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
    topics.remove()
    python_s = min(result["main_thread_s"], result["cpu_s"])
    total = sum(samples.values())
    seconds = {row: python_s * samples[row] / total for row in ROWS if row in samples}
    seconds["Kafka client's threads"] = result["cpu_s"] - python_s
    return {
        "shape": str(shape),
        "events": events,
        "samples": total,
        "us_per_event": {row: 1e6 * seconds.get(row, 0.0) / events for row in ROWS},
        "share": {row: seconds.get(row, 0.0) / result["cpu_s"] for row in ROWS},
        "rest": dict(unknown.most_common(8)),
    }


def _profiled(command: list[str], topics: RunTopics, stacks: Path) -> dict[str, float]:
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
    if not stacks.exists():
        raise SystemExit(f"py-spy could not look into the worker:\n{done.stderr[-2000:]}")
    results = [text for text in done.stdout.splitlines() if text.startswith('{"events"')]
    if not results:
        raise SystemExit(f"the profiled worker failed:\n{done.stderr[-4000:]}")
    return dict(json.loads(results[-1]))
