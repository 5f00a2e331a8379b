"""The entry point: gathers the commands, each from its own file."""

from __future__ import annotations

import signal
import sys
import threading
from typing import Annotated

# The imports below take a second or more: Ctrl-C in them ends like any other, without a traceback.
_early = (
    threading.current_thread() is threading.main_thread()
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler
)
if _early:
    signal.signal(signal.SIGINT, lambda *_: sys.exit(130))

import typer  # noqa: E402

import routekeel  # noqa: E402
from routekeel.streams.cli import (  # noqa: E402
    audit,
    demo,
    inspect,
    produce,
    schemas,
    serve,
    sql,
    stack,
    topics,
)

if _early:
    signal.signal(signal.SIGINT, signal.default_int_handler)

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
    except KeyboardInterrupt:  # while the commands were being put together
        raise SystemExit(130) from None
    except BrokenPipeError:
        # The reader of our output (head, less) went away: nothing to say to it.
        sys.stderr.close()
        raise SystemExit(0) from None


if __name__ == "__main__":
    main()
