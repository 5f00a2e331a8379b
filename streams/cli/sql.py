"""`routekeel sql`: ask the history."""

from __future__ import annotations

import csv
import sys
from typing import Annotated

import typer
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

ROWS_SHOWN = 200


def sql(
    query: Annotated[
        str, typer.Argument(help="The query; '-' reads it from standard input. Read-only.")
    ],
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, every row.")] = False,
    config: ConfigFlag = None,
    set_: SetFlag = None,
    json: JsonFlag = False,
) -> None:
    """Run a read-only query; docs/SQL.md has ten to start from."""

    def action() -> None:
        from routekeel.streams.history.sql import run_query

        text = sys.stdin.read() if query == "-" else query
        result = run_query(settings_from(config, set_).settings, text)
        if json:
            rows = [
                [
                    value if isinstance(value, int | float | bool | None | list) else str(value)
                    for value in row
                ]
                for row in result.rows
            ]
            emit_json({"columns": list(result.columns), "rows": rows})
        elif as_csv:
            writer = csv.writer(sys.stdout)
            writer.writerow(result.columns)
            writer.writerows(result.rows)
        else:
            table = Table(box=None, header_style="bold")
            for column in result.columns:
                table.add_column(str(column), overflow="fold")
            for row in result.rows[:ROWS_SHOWN]:
                table.add_row(*("NULL" if value is None else str(value) for value in row))
            stdout.print(table)
            if len(result.rows) > ROWS_SHOWN:
                stdout.print(
                    f"[dim]… {len(result.rows) - ROWS_SHOWN} more rows; --csv or --json prints all[/]"
                )

    run_command(action, as_json=json)
