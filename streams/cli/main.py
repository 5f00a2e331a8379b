"""The entry point: gathers the commands, each from its own file."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import routekeel
from routekeel.streams.cli import audit, demo, inspect, produce, schemas, serve, sql, stack, topics

app = typer.Typer(
    name="routekeel",
    help="Live, exact and replayable router telemetry for Mixture-of-Experts inference.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"routekeel {routekeel.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Exit codes: 0 done, 1 the check or the work failed, 2 wrong use, 3 a service is away, 130 interrupted."""


app.command("demo")(demo.demo)
app.command("up")(stack.up)
app.command("down")(stack.down)
app.command("status")(stack.status)
app.command("topics")(topics.topics)
app.command("worker")(serve.worker)
app.command("sink")(serve.sink)
app.command("produce")(produce.produce)
app.command("sql")(sql.sql)
app.command("audit")(audit.audit)
app.command("schemas")(schemas.schemas)
app.command("config")(inspect.config)


def main() -> None:
    """Run the command line."""
    try:
        app()
    except BrokenPipeError:
        # The reader of our output (head, less) went away: nothing to say to it.
        sys.stderr.close()
        raise SystemExit(0) from None


if __name__ == "__main__":
    main()
