"""`routekeel config`: what is in force, and where each value came from."""

from __future__ import annotations

from rich.table import Table

from routekeel.streams.cli.output import (
    ConfigFlag,
    JsonFlag,
    SetFlag,
    emit_json,
    run_command,
    settings_from,
    stdout,
)


def config(config: ConfigFlag = None, set_: SetFlag = None, json: JsonFlag = False) -> None:
    """Print every setting in force with its origin; secrets are hidden."""

    def action() -> None:
        rows = settings_from(config, set_).rows()
        if json:
            emit_json({name: {"value": value, "origin": origin} for name, value, origin in rows})
            return
        table = Table(box=None, header_style="bold")
        for title in ("setting", "value", "from"):
            table.add_column(title, overflow="fold")
        for name, value, origin in rows:
            table.add_row(name, value, origin, style=None if origin != "default" else "dim")
        stdout.print(table)

    run_command(action, as_json=json)
