"""docs/RELIABILITY.md from the outcomes of a run: every figure in it comes from here."""

from __future__ import annotations

import platform
import re
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import psutil

from routekeel.infra.local.jars import KAFKA_VERSION
from tests.chaos.feed import STEPS_US, TIME_STEP_SHARE
from tests.chaos.legend import MEANING, settings_lines
from tests.chaos.run import Outcome
from tests.chaos.schedule import ALL_KINDS

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "RELIABILITY.md"
DAY_S = 86_400
STEPS_S = [step // 1_000_000 for step in STEPS_US]
STEPS = " or ".join(f"{s:+,d} s" if s % DAY_S else f"{s // DAY_S:+,d} days" for s in STEPS_S)
HEAD = f"""# Reliability

<!-- Written by `make chaos` (python -m tests.chaos --write). Change tests/chaos/table.py, not this file. -->

Seeded faults against the real thing: a Kafka broker, a schema registry, a ClickHouse engine, two workers
and two sinks, all in processes of their own, while chunks flow in. In every run one record in a hundred is
poison and one in a hundred is sent twice. One in {1 / TIME_STEP_SHARE:.0f} has a wrong event time (`event_time_us`, its
producer's own), off by {STEPS}.

Every process has a clock of its own that can be set (`tests/chaos/clocks.py`): broker, registry and the
store's HTTP side share one, each worker and sink has its own. The ClickHouse engine reads the kernel's
below the C library and is not reached; `event_time_us` above stands for the clocks of producers. Rows
without a clock step are of runs from before there were any.

On top of that each seed draws settings of the product (`tests/chaos/policy.py`) and its own schedule of
faults (`tests/chaos/schedule.py`).

After each seed, once the system has caught up **by itself**, four things must hold:

- `routekeel audit`: every record of the log has its rows or its dead letter, once, and a route where the
  settings have one due;
- `routekeel audit --replay`: every stored value is, bit for bit, what a replay of the log gives;
- every session's final state, read from the changelog, is the oracle's, byte for byte;
- every record of the output topics, repeats dropped by id, is the oracle's, byte for byte.

The oracle is the topology in memory over the same log, in large batches, without a fault.
"""
FAILED = "What it was, and what has mended it, is in CHANGELOG.md under the seed's number."
FOLDERS = re.compile(r"(?<![\w:/])/(?:[^\s/']+/)+")
"""Of one machine, and of no use to a reader."""
RERUN = """
## Have it again

```
make chaos                       # ten seeds; writes this page
make chaos-night                 # a hundred seeds, the store away for two minutes at a time; writes this page
make chaos SEED=17 SEEDS=1       # one seed; prints its schedule and what was done when
python -m tests.chaos --seed 17 --drop 2,5   # the same schedule without two of its faults
python -m tests.chaos --seed 17 --shrink     # leaves out what a failure does not need
```

A seed gives the same schedule and the same records; when exactly a process is hit is the machine's doing.
A failing seed prints its schedule, the log of what was done, and the command that runs it again.
`make test-stress` runs ten seeds as tests.
"""


def render(outcomes: Sequence[Outcome], command: str, when: str, impossible: dict[str, str]) -> str:
    """The whole page."""
    failed = [outcome for outcome in outcomes if outcome.failure]
    total = Counter[str]()
    for outcome in outcomes:
        total += outcome.schedule.kinds()
    parts = [HEAD, "## The runs\n", _facts(outcomes, failed, command, when), ""]
    parts += ["| fault | times | what it is |", "|---|---:|---|"]
    parts += [f"| {kind} | {total[kind]} | {MEANING[kind]} |" for kind in ALL_KINDS]
    parts += [f"\nLeft out on this machine: {k} ({why})." for k, why in impossible.items()]
    parts += [
        "",
        "What the seeds draw of the settings; the oracle and the audits have the same:",
        "",
    ]
    parts += settings_lines()
    parts += ["", _rows(outcomes)]
    if failed:
        parts += ["", "## Failed", "", FAILED, *(_failed(outcome) for outcome in failed)]
    return "\n".join(parts) + "\n" + RERUN


def _facts(outcomes: Sequence[Outcome], failed: Sequence[Outcome], command: str, when: str) -> str:
    held = [outcome.verdict for outcome in outcomes if outcome.verdict is not None]
    pace = outcomes[0].schedule.pace
    memory_gib = psutil.virtual_memory().total / 2**30
    packages = ("faust-streaming", "aiokafka", "confluent-kafka", "chdb", "rocksdict", "numba")
    facts = [
        f"- {when}; {command} runs these seeds again. Every run in the results file is a row, failed ones too",
        f"- {len(outcomes) - len(failed)} of {len(outcomes)} runs held: "
        f"{sum(v.events for v in held):,} events, {sum(v.rows for v in held):,} rows compared bit for "
        f"bit, {sum(v.repeats for v in held):,} repeated outputs dropped, "
        f"{sum(v.dead_letters for v in held):,} dead letters",
        f"- each seed: {pace.chunks:,} chunks at about {pace.rate:.0f} a second; "
        f"'store away' lasts {_away(outcomes)}",
        f"- held, of the runs on each commit: {', '.join(_by_commit(outcomes))}",
        f"- Python {platform.python_version()}, Kafka {KAFKA_VERSION}, "
        + ", ".join(f"{name} {version(name)}" for name in packages),
        f"- {platform.system()} {platform.machine()}, {psutil.cpu_count()} cores, {memory_gib:.0f} GiB",
    ]
    return "\n".join(facts)


def _away(outcomes: Sequence[Outcome]) -> str:
    runs = Counter(outcome.schedule.pace.away_s for outcome in outcomes)
    (usual, _), *others = runs.most_common()
    return f"{usual:.0f} s" + "".join(f", in {count} runs {s:.0f} s" for s, count in others)


def _by_commit(outcomes: Sequence[Outcome]) -> list[str]:
    runs = Counter(outcome.commit for outcome in outcomes)
    held = Counter(outcome.commit for outcome in outcomes if not outcome.failure)
    return [f"{commit} {held[commit]} of {count}" for commit, count in sorted(runs.items())]


def _rows(outcomes: Sequence[Outcome]) -> str:
    lines = [
        "| seed | checkpoints | routes | state | standbys | sessions s | faults | restarts | poison | "
        "event time steps | events | rows | repeats dropped | dead letters | caught up s | seconds | verdict |",
        "|---:|---|---|---|---:|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for outcome in outcomes:
        schedule, verdict = outcome.schedule, outcome.verdict
        kinds = ", ".join(k + (f" ×{n}" if n > 1 else "") for k, n in schedule.kinds().items())
        counts = (
            (verdict.events, verdict.rows, verdict.repeats, verdict.dead_letters)
            if verdict
            else ("", "", "", "")
        )
        shown = [f"{count:,}" if isinstance(count, int) else count for count in counts]
        sessions = f"{schedule.worker_session_s:.0f} / {schedule.sink_session_s:.0f}"
        cells = [
            str(schedule.seed), schedule.policy.checkpoints, schedule.policy.routes, schedule.store,
            str(schedule.policy.standbys), sessions, kinds, str(outcome.restarts),
            str(outcome.poison), str(outcome.time_steps), *shown, f"{outcome.settle_s:.0f}",
            f"{outcome.seconds:.0f}", "**failed**" if outcome.failure else "exact",
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _failed(outcome: Outcome) -> str:
    reason = [line for line in outcome.failure.splitlines() if "Error" in line] or [""]
    shown = FOLDERS.sub("…/", reason[0])[:300]
    return f"\n```\n{outcome.schedule}\n{shown}\n```"
