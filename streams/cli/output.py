"""What every command prints: text for people on stderr/stdout, one JSON object last with --json.

With `--json`, stdout holds nothing but that object on its last line, so that `tail -1 | jq` works;
progress and errors for people go to stderr.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console

from routekeel.streams.errors import RoutekeelError
from routekeel.streams.settings import LoadedSettings, load_settings

JsonFlag = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on the last line of stdout.")
]
ConfigFlag = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", help="YAML settings file (else $ROUTEKEEL_CONFIG).", dir_okay=False
    ),
]
SetFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="A single setting, e.g. --set topics.partitions=4. Wins over all else."
    ),
]

stdout = Console(highlight=False, soft_wrap=True)
stderr = Console(stderr=True, highlight=False)

T = TypeVar("T")


def settings_from(
    config: Path | None, assignments: list[str] | None, **flags: Any
) -> LoadedSettings:
    """The settings for a command: file, variables, then --set and the command's own flags."""
    chosen: dict[str, Any] = {}
    for assignment in assignments or []:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise typer.BadParameter(f"--set wants name=value, got {assignment!r}")
        chosen[name.strip()] = _value(assignment, text)
    chosen |= {name.replace("__", "."): value for name, value in flags.items() if value is not None}
    return load_settings(config, chosen)


def _value(assignment: str, text: str) -> Any:
    """Lists and mappings are written as JSON; anything else is text, which the settings tree reads."""
    if text[:1] not in "[{":
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(
            f"--set {assignment}: looks like JSON but is not ({error})"
        ) from error


def emit_json(payload: Mapping[str, Any]) -> None:
    """Print the command's one JSON object."""
    sys.stdout.write(json.dumps(payload, default=str, allow_nan=False) + "\n")
    sys.stdout.flush()


def run_command(action: Callable[[], int | None], *, as_json: bool) -> None:
    """Run `action` and turn what happens into an exit code and a message that says what to do.

    Raises typer.Exit with the code: the action's own, the error's, or 130 after Ctrl-C.
    """
    from routekeel.infra.local.errors import StackError

    try:
        code = action() or 0
    except (RoutekeelError, StackError) as error:
        code = error.exit_code if isinstance(error, RoutekeelError) else 3
        fail(error.message, error.hint, code, as_json=as_json)
    except KeyboardInterrupt:
        # Everything is stopped; pressed again while the interpreter ends, it would change the exit code.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        code = 130
        fail("interrupted", "", code, as_json=as_json)
    raise typer.Exit(code)


def fail(message: str, hint: str, code: int, *, as_json: bool) -> None:
    """Say what went wrong, and what to do, on stderr (and as the JSON object where asked for)."""
    stderr.print(f"[bold red]error:[/] {escape(message)}")
    if hint:
        stderr.print(f"[bold]try:[/] {escape(hint)}")
    if as_json:
        emit_json({"ok": False, "error": message, "hint": hint, "exit_code": code})


def escape(text: str) -> str:
    """Text as it is: rich would take [brackets] for markup."""
    from rich.markup import escape as rich_escape

    return rich_escape(text)
