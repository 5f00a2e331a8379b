"""`routekeel schemas`: show, check and write what is rendered from the records."""

from __future__ import annotations

from typing import Annotated

import typer

from routekeel.streams.cli.output import JsonFlag, emit_json, escape, run_command, stderr, stdout


def schemas(
    check: Annotated[
        bool, typer.Option("--check", help="Fail on any difference or incompatible change.")
    ] = False,
    write: Annotated[bool, typer.Option("--write", help="Write the rendered files.")] = False,
    json: JsonFlag = False,
) -> None:
    """List the records; --check compares the published files with them, --write renders the files."""

    def action() -> int:
        from routekeel.schemas import render
        from routekeel.schemas.records import RECORDS

        written: list[str] = []
        refused = ""
        if write:
            try:
                written = [str(path) for path in render.write()]
            except render.ReleasedSchemaChanged as error:
                refused = str(error)  # nothing was written; the check names every reason
        problems = render.check() if check or write else []
        if refused and not any(problem.startswith(refused) for problem in problems):
            problems.insert(0, refused)
        if json:
            records = [
                {"name": r.name, "version": r.version, "fields": len(r.fields)} for r in RECORDS
            ]
            emit_json(
                {"ok": not problems, "records": records, "problems": problems, "written": written}
            )
            return 1 if problems else 0
        for problem in problems:
            stderr.print(f"[red]✗[/] {escape(problem)}")
        if any("released" in problem for problem in problems):
            stderr.print(
                "[bold]try:[/] undo the change, or raise the record's version: that is a file of its own"
            )
        elif problems:
            stderr.print("[bold]try:[/] routekeel schemas --write, and look at the difference")
        elif check or write:
            stdout.print(
                f"{len(RECORDS)} records, published files, tables and reference page agree"
            )
        else:
            for record in RECORDS:
                stdout.print(
                    f"{record.name} v{record.version}: {len(record.fields)} fields. {escape(record.doc)}"
                )
        return 1 if problems else 0

    run_command(action, as_json=json)
