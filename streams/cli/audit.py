"""`routekeel audit`: does ClickHouse hold every record of the log, once?"""

from __future__ import annotations

from routekeel.streams.cli.output import (
    ConfigFlag,
    JsonFlag,
    SetFlag,
    emit_json,
    run_command,
    settings_from,
    stdout,
)


def audit(config: ConfigFlag = None, set_: SetFlag = None, json: JsonFlag = False) -> None:
    """Compare source offsets with ClickHouse rows; exit code 1 when something is missing or doubled."""

    def action() -> int:
        from routekeel.streams.history.audit import audit as compare

        report = compare(settings_from(config, set_).settings)
        if json:
            emit_json(report.to_json())
        else:
            stdout.print(report.render())
        return 0 if report.ok else 1

    run_command(action, as_json=json)
