"""`routekeel demo`: everything at once, on a real model."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Annotated

import typer

from routekeel.streams.cli.output import (
    ConfigFlag,
    JsonFlag,
    SetFlag,
    emit_json,
    run_command,
    settings_from,
    stderr,
    stdout,
)
from routekeel.streams.cli.stack import open_stack


def demo(
    backend: Annotated[str, typer.Option(help="Inference engine: mlx or reference.")] = "mlx",
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave everything running afterwards.")
    ] = False,
    config: ConfigFlag = None,
    set_: SetFlag = None,
    json: JsonFlag = False,
) -> None:
    """Start the stack, run a real MoE model's sessions through it, show routes live, then the figures."""

    def action() -> int:
        from routekeel.streams.demo.run import DemoOptions, run_demo

        settings = settings_from(config, set_).settings
        console = stderr if json else stdout
        report = run_demo(
            open_stack(settings),
            lambda: settings_from(config, set_).settings,
            DemoOptions(backend, keep),
            console,
        )
        if json:
            emit_json(report)
        else:
            say_what_next(settings.stack.state_dir.as_posix(), keep)
        return 0 if report["missing"] == report["duplicated"] == report["dropped"] == 0 else 1

    run_command(action, as_json=json)


def say_what_next(state_dir: str, keep: bool) -> None:
    """What to try after the demo; all but `up` need the services to run."""
    command = "routekeel" if shutil.which("routekeel") else os.path.relpath(sys.argv[0])
    query = (
        "SELECT session_id, sum(winner_flips_base) AS flips FROM telemetry "
        "GROUP BY session_id ORDER BY flips DESC LIMIT 5"
    )
    following = [
        (f"{command} status", "what runs")
        if keep
        else ("make demo KEEP=1", "the same, left running"),
        (f"{command} down", "stops it; the data stay")
        if keep
        else (f"{command} up", "the services alone"),
        (f'{command} sql "{query}"', "the most restless sessions"),
        (
            f"{command} audit --replay --config {state_dir}/demo.yaml",
            "computes everything again and compares every bit",
        ),
    ]
    stdout.print(
        f"\nLook at [bold]{state_dir}/demo.html[/] in a browser; the figures are in {state_dir}/demo.json. Next:"
    )
    for line, meaning in following:
        stdout.print(f"  {line}\n      [dim]{meaning}[/]")
    stdout.print("  docs/SQL.md\n      [dim]ten questions, ready to ask[/]")
