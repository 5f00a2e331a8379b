"""Runs the contender that the first argument names; settings come as ROUTEKEEL_* variables.

`python -m tests.bench.contenders NAME TAG EVENTS T L E` prints one JSON line: events, seconds, CPU
seconds and peak memory.
"""

from __future__ import annotations

import importlib
import sys

from routekeel.streams.settings import load_settings

from .task import Task

# Where each contender is, and its function; a peer's package is imported by its own process only.
CONTENDERS = {
    "routekeel": ("own", "run"),
    "serve": ("own", "serve"),
    "loop": ("loop", "run"),
    "quix": ("quix", "run"),
    "bytewax": ("bytewax_flow", "run"),
    "faust": ("stock_faust", "run"),
}


def main() -> None:
    """Run one contender in this process."""
    name, tag, *numbers = sys.argv[1:]
    module, function = CONTENDERS[name]
    settings = load_settings().settings
    # In the benchmark's own folder, which its parent removes whatever becomes of this process.
    folder = settings.stack.state_dir / "bench-state" / tag
    folder.mkdir(parents=True, exist_ok=True)
    events, steps, layers, experts = (int(number) for number in numbers)
    task = Task(settings, tag, events, steps, layers, experts, str(folder))
    getattr(importlib.import_module(f"tests.bench.contenders.{module}"), function)(task)


if __name__ == "__main__":
    main()
