"""Runs the contender that the first argument names; settings come as ROUTEKEEL_* variables.

`python -m tests.bench.contenders NAME TAG EVENTS T L E` prints one JSON line: events, seconds, CPU
seconds and peak memory.
"""

from __future__ import annotations

import importlib
import sys
import tempfile

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
    with tempfile.TemporaryDirectory(prefix="routekeel-bench-state-") as folder:
        events, steps, layers, experts = (int(number) for number in numbers)
        task = Task(load_settings().settings, tag, events, steps, layers, experts, folder)
        getattr(importlib.import_module(f"tests.bench.contenders.{module}"), function)(task)


if __name__ == "__main__":
    main()
