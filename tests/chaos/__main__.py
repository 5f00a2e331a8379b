"""`python -m tests.chaos`: runs seeds against a stack of its own and writes docs/RELIABILITY.md.

Exit code 1 when a seed failed; it has then printed its schedule and how to run it again. Ended by Ctrl-C
or SIGTERM it takes down what it started and unmounts its disks, and leaves the logs.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import tempfile
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from tests.chaos.bench import Bench, chaos_bench
from tests.chaos.record import append, read
from tests.chaos.run import Outcome, run_seed
from tests.chaos.schedule import Pace, Schedule, draw
from tests.chaos.table import DOCUMENT, render

RESULTS = Path(".routekeel") / "chaos.jsonl"


def arguments() -> argparse.Namespace:
    """The command line, parsed."""
    pace = Pace()
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=1, help="how many; 0: only write the page")
    parser.add_argument("--chunks", type=int, default=pace.chunks)
    parser.add_argument("--rate", type=float, default=pace.rate, help="chunks a second")
    parser.add_argument(
        "--away-s", type=float, default=pace.away_s, help="how long 'store away' is"
    )
    parser.add_argument("--drop", default="", help="numbers of faults to leave out, e.g. 2,5")
    parser.add_argument("--shrink", action="store_true", help="leave out what a failure needs not")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where outcomes are added")
    parser.add_argument("--fresh", action="store_true", help="forget the outcomes there first")
    parser.add_argument("--write", action="store_true", help="write docs/RELIABILITY.md from them")
    parser.add_argument("--plan", action="store_true", help="print the schedules and run nothing")
    return parser.parse_args()


def again(schedule: Schedule, options: argparse.Namespace, dropped: Sequence[int]) -> str:
    """The command that runs this schedule again."""
    line = f"python -m tests.chaos --seed {schedule.seed}"
    line += f" --chunks {options.chunks} --rate {options.rate:.0f} --away-s {options.away_s:.0f}"
    return line + (f" --drop {','.join(map(str, dropped))}" if dropped else "")


def report(outcome: Outcome, command: str) -> None:
    """Say how a seed went; of a failure, everything."""
    seed, verdict = outcome.schedule.seed, outcome.verdict
    if not outcome.failure:
        print(f"seed {seed}: exact in {outcome.seconds:.0f} s, {verdict}", flush=True)
        return
    print("\n".join([str(outcome.schedule), *outcome.log, outcome.failure]))
    print(
        f"seed {seed} FAILED after {outcome.seconds:.0f} s; to run it again: {command}", flush=True
    )


def shrink(bench: Bench, schedule: Schedule) -> Schedule:
    """Leave out one fault after another as long as the run still fails."""
    for attempt, fault in enumerate(reversed(schedule.faults), start=1):
        fewer = schedule.without([fault.number])
        still = bool(run_seed(bench, fewer, attempt).failure)
        print(f"without fault {fault.number}: {'fails still' if still else 'holds'}", flush=True)
        if still:
            schedule = fewer
    return schedule


def command_for(seeds: Collection[int], more: str) -> str:
    """The command that runs these seeds; where they are not one stretch, of each its first and how many.

    >>> command_for({4, 3, 5}, "--rate 9")
    '`python -m tests.chaos --seed 3 --seeds 3 --rate 9`'
    >>> command_for({0, 1, 7}, "--rate 9")
    '`python -m tests.chaos --seed A --seeds N --rate 9` with A, N = 0, 2; 7, 1'
    """
    firsts = sorted(seed for seed in seeds if seed - 1 not in seeds)
    lasts = sorted(seed for seed in seeds if seed + 1 not in seeds)
    spans = [(first, last - first + 1) for first, last in zip(firsts, lasts, strict=True)]
    if len(spans) == 1:
        ((first, count),) = spans
        return f"`python -m tests.chaos --seed {first} --seeds {count} {more}`"
    each = "; ".join(f"{first}, {count}" for first, count in spans)
    return f"`python -m tests.chaos --seed A --seeds N {more}` with A, N = {each}"


def write(options: argparse.Namespace, impossible: dict[str, str]) -> None:
    """docs/RELIABILITY.md from the outcomes that are kept."""
    outcomes = read(options.results)
    more = f"--chunks {options.chunks} --rate {options.rate:.0f} --away-s {options.away_s:.0f}"
    line = command_for({outcome.schedule.seed for outcome in outcomes}, more)
    page = render(outcomes, line, time.strftime("%Y-%m-%d"), impossible)
    DOCUMENT.write_text(page, encoding="utf-8")


def end_orderly() -> None:
    """Take SIGTERM as Ctrl-C: a job in the background ignores that one. Nothing cuts the ending short."""
    ends = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def end(number: int, _: object) -> None:
        for other in ends:
            signal.signal(other, signal.SIG_IGN)
        raise KeyboardInterrupt(signal.Signals(number).name)

    for number in ends:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end)


def main() -> int:
    """Run what is asked for."""
    options = arguments()
    pace = Pace(options.chunks, options.rate, options.away_s)
    dropped = [int(number) for number in options.drop.split(",") if number]
    seeds = range(options.seed, options.seed + options.seeds)
    if options.seeds == 0:  # only the page
        write(options, {})
        return 0
    if options.plan:
        print("\n".join(str(draw(seed, pace).without(dropped)) for seed in seeds))
        return 0
    if options.fresh:
        options.results.unlink(missing_ok=True)
    end_orderly()
    folder = Path(tempfile.mkdtemp(prefix="routekeel-chaos-"))
    try:
        failed = run(options, pace, seeds, dropped, folder)
    except KeyboardInterrupt as signalled:
        print(f"ended by {signalled}; the processes' logs are under {folder}", flush=True)
        return 130
    if failed:
        print(f"failed: {failed}; the processes' logs are under {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if failed else 0


def run(
    options: argparse.Namespace,
    pace: Pace,
    seeds: range,
    dropped: Sequence[int],
    folder: Path,
) -> list[int]:
    """Run the seeds, one after another; those that failed."""
    failed: list[int] = []
    with chaos_bench(folder) as bench:
        for kind, why in bench.impossible.items():
            print(f"left out: {kind} ({why})")
        for seed in seeds:
            schedule = draw(seed, pace, bench.impossible).without(dropped)
            print(schedule, flush=True)
            outcome = run_seed(bench, schedule)
            report(outcome, again(schedule, options, dropped))
            append(options.results, outcome)
            if outcome.failure:
                failed.append(seed)
            if outcome.failure and options.shrink:
                print(f"shrunk to:\n{shrink(bench, schedule)}")
            elif not outcome.failure:
                shutil.rmtree(folder / f"chaos-{seed}-0", ignore_errors=True)
            if options.write:
                write(options, bench.impossible)
    return failed


if __name__ == "__main__":
    raise SystemExit(main())
