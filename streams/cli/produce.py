"""`routekeel produce`: publish chunks from a file, or synthetic ones with known ground truth."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict
from typing import Annotated, Any

import typer

from routekeel.streams.cli.output import (
    ConfigFlag,
    JsonFlag,
    SetFlag,
    emit_json,
    escape,
    run_command,
    settings_from,
    stderr,
)
from routekeel.streams.settings import Settings

BAD_LINES_SHOWN = 20


def produce(
    file: Annotated[
        str | None,
        typer.Argument(help="Newline-delimited JSON chunks (docs/PRODUCE.md); '-' is stdin."),
    ] = None,
    synthetic: Annotated[
        bool, typer.Option("--synthetic", help="Generate chunks instead of reading a file.")
    ] = False,
    sessions: Annotated[int, typer.Option(min=1, help="Synthetic: how many sessions.")] = 100,
    chunks: Annotated[
        int, typer.Option(min=1, help="Synthetic: how many chunks each session has.")
    ] = 100,
    shape: Annotated[str, typer.Option(help="Synthetic: T,L,E of a chunk.")] = "8,4,8",
    seed: Annotated[int, typer.Option(help="Synthetic: the same seed gives the same chunks.")] = 0,
    rate: Annotated[
        float | None,
        typer.Option(min=0.001, help="Chunks per second in all; as fast as possible without."),
    ] = None,
    config: ConfigFlag = None,
    set_: SetFlag = None,
    json: JsonFlag = False,
) -> None:
    """Publish router logits to the logits topic. Exit code 1 when a chunk was bad or not delivered."""
    if synthetic == (file is not None):
        raise typer.BadParameter("give either a FILE or --synthetic")

    def action() -> int:
        settings = settings_from(config, set_).settings
        bad: list[Any] = []
        with ExitStack() as resources:
            source, total = (
                _synthetic(sessions, chunks, shape, seed)
                if synthetic
                else _file(str(file), settings, bad, resources)
            )
            result = _publish(settings, source, rate, total)
        ok = not (bad or result["refused"] or result["undelivered"] or result["interrupted"])
        if json:
            shown = [str(line) for line in bad[:BAD_LINES_SHOWN]]
            emit_json({"ok": ok, **result, "bad_lines": len(bad), "bad_lines_first": shown})
        else:
            stderr.print(
                f"sent {result['delivered']:,} chunks in {result['seconds']:.1f} s"
                + (f"; bad lines {len(bad):,}" if bad else "")
                + (f"; refused {result['refused']}" if result["refused"] else "")
                + (f"; not delivered {result['undelivered']:,}" if result["undelivered"] else "")
            )
        return 130 if result["interrupted"] else 0 if ok else 1

    run_command(action, as_json=json)


def _synthetic(sessions: int, chunks: int, shape: str, seed: int) -> tuple[Iterable[Any], int]:
    from routekeel.streams.produce.synthetic import SyntheticLoad

    try:
        tokens, layers, experts = (int(part) for part in shape.split(","))
    except ValueError:
        raise typer.BadParameter(f"--shape wants T,L,E, got {shape!r}") from None
    load = SyntheticLoad(
        sessions, chunks, shape=(tokens, layers, experts), seed=seed, top_k=min(2, experts)
    )
    return load, len(load)


def _file(
    name: str, settings: Settings, bad: list[Any], resources: ExitStack
) -> tuple[Iterable[Any], int | None]:
    from routekeel.streams.produce.check import ChunkCheck
    from routekeel.streams.produce.from_settings import sdk_config
    from routekeel.streams.produce.ndjson import open_ndjson, read_ndjson

    def on_bad(line: Any) -> None:
        bad.append(line)
        if len(bad) <= BAD_LINES_SHOWN:
            stderr.print(f"[yellow]{escape(str(line))}[/]")

    stream = resources.enter_context(open_ndjson(name))
    return read_ndjson(stream, ChunkCheck(sdk_config(settings), DEFAULTS), on_bad), None


# What a line need not say.
DEFAULTS = {"top_k": 2, "model": "unknown", "backend": "file"}


def _publish(
    settings: Settings, source: Iterable[Any], rate: float | None, total: int | None
) -> dict[str, Any]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from routekeel.streams.produce.from_settings import sdk_config
    from routekeel.streams.produce.publish import publish
    from routekeel.streams.sdk.producer import Producer
    from routekeel.streams.topics import require

    require(settings, [settings.topics.logits])
    columns = (TextColumn("publishing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (
        Progress(*columns, console=stderr, disable=not stderr.is_terminal) as progress,
        Producer(sdk_config(settings), **DEFAULTS) as producer,  # type: ignore[arg-type]
    ):
        task = progress.add_task("", total=total)
        return asdict(
            publish(source, producer, rate, lambda done: progress.update(task, completed=done))
        )
