"""`routekeel audit`: does ClickHouse hold every record of the log, once, and with the right bits?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

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

if TYPE_CHECKING:
    from routekeel.streams.history.audit import AuditReport
    from routekeel.streams.history.replay_audit import ReplayReport


def audit(
    config: ConfigFlag = None,
    set_: SetFlag = None,
    replay: Annotated[
        bool,
        typer.Option("--replay", help="Compute everything again and compare every stored value."),
    ] = False,
    partition: Annotated[
        int | None, typer.Option(min=0, help="With --replay: this partition only.")
    ] = None,
    first: Annotated[
        int, typer.Option("--from", min=0, help="With --replay: the first offset to compare.")
    ] = 0,
    end: Annotated[
        int | None, typer.Option("--to", min=0, help="With --replay: the offset to stop before.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Compare source offsets with ClickHouse rows; exit code 1 when something is missing or doubled.

    With --replay, every value too, bit for bit (settings must be those that the worker ran with).
    """

    def action() -> int:
        from rich.progress import Progress

        from routekeel.streams.history.audit import audit as compare
        from routekeel.streams.history.replay_audit import audit_replay

        settings = settings_from(config, set_).settings
        report: AuditReport | ReplayReport
        with Progress(console=stderr, transient=True, disable=not stderr.is_terminal) as progress:
            task = progress.add_task("replaying" if replay else "comparing", total=None)

            def moved(done: int, total: int) -> None:
                progress.update(task, completed=done, total=total)

            if replay:
                report = audit_replay(settings, partition, first, end, moved)
            else:
                report = compare(settings, moved)
        if json:
            emit_json(report.to_json())
        else:
            stdout.print(report.render())
        return 0 if report.ok else 1

    run_command(action, as_json=json)
