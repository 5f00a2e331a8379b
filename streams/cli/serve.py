"""`routekeel worker` and `routekeel sink`: the two long-running processes."""

from __future__ import annotations

import logging
import signal
import threading
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.logging import RichHandler

from routekeel.streams.cli.live_line import LiveLine
from routekeel.streams.cli.log_throttle import LogThrottle
from routekeel.streams.cli.output import (
    ConfigFlag,
    JsonFlag,
    SetFlag,
    emit_json,
    run_command,
    settings_from,
    stderr,
)

UntilIdle = Annotated[
    float | None,
    typer.Option("--until-idle", help="End when everything is done and nothing came for SECONDS."),
]
LogLevel = Annotated[str, typer.Option("--log-level", help="debug, info, warning or error.")]


def configure_logging(level: str) -> None:
    """Log to stderr; the libraries below only when they have something to warn about."""
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise typer.BadParameter(f"unknown log level {level!r}")
    if stderr.is_terminal:
        handler: logging.Handler = RichHandler(
            console=stderr, show_path=False, omit_repeated_times=False
        )
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    handler.addFilter(LogThrottle(own="routekeel"))
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[handler], force=True)
    logging.getLogger("routekeel").setLevel(number)


def worker(
    until_idle: UntilIdle = None,
    config: ConfigFlag = None,
    set_: SetFlag = None,
    json: JsonFlag = False,
    log_level: LogLevel = "info",
) -> None:
    """Run a stream worker; several share the partitions."""

    def action() -> None:
        from routekeel.streams.app.progress import WorkerProgress
        from routekeel.streams.app.run import run_worker

        configure_logging(log_level)
        settings = settings_from(config, set_).settings

        def show(at: WorkerProgress) -> None:
            counts = {"lag": at.lag, "sessions": at.sessions, "DLQ": at.dead_letters}
            if at.to_recover:
                counts["state records to recover"] = at.to_recover
            line.show(at.records, counts)

        with LiveLine(stderr, "records", shown=not json) as line:
            result = run_worker(settings, until_idle_s=until_idle, on_progress=show)
        if json:
            emit_json({"ok": True, **asdict(result)})
        else:
            stderr.print(f"applied {result.records:,} records in {result.seconds:.1f} s")

    run_command(action, as_json=json)


def sink(
    until_idle: UntilIdle = None,
    config: ConfigFlag = None,
    set_: SetFlag = None,
    json: JsonFlag = False,
    log_level: LogLevel = "info",
) -> None:
    """Run a ClickHouse sink; several share the partitions."""

    def action() -> None:
        from routekeel.streams.sinks.progress import SinkProgress
        from routekeel.streams.sinks.run import run_sink

        configure_logging(log_level)
        settings = settings_from(config, set_).settings
        stop = threading.Event()

        def on_signal(number: int, frame: Any) -> None:
            stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, on_signal)

        def show(at: SinkProgress) -> None:
            line.show(sum(at.rows.values()), {"lag": at.lag, "dead letters": at.dead_letters})

        with LiveLine(stderr, "rows", shown=not json) as line:
            result = run_sink(settings, until_idle_s=until_idle, on_progress=show, stop=stop)
        if json:
            emit_json({"ok": True, **asdict(result)})
        else:
            stderr.print(f"inserted {sum(result.rows.values()):,} rows")

    run_command(action, as_json=json)
