"""`routekeel topics`: create the topics with the right settings."""

from __future__ import annotations

from dataclasses import asdict

from routekeel.streams.cli.output import (
    ConfigFlag,
    JsonFlag,
    SetFlag,
    emit_json,
    run_command,
    settings_from,
    stdout,
)


def topics(config: ConfigFlag = None, set_: SetFlag = None, json: JsonFlag = False) -> None:
    """Create the topics that are missing and set what differs; safe to repeat."""

    def action() -> None:
        from routekeel.streams.topics import ensure_topics

        outcomes = ensure_topics(settings_from(config, set_).settings)
        if json:
            emit_json({"ok": True, "topics": [asdict(outcome) for outcome in outcomes]})
            return
        for outcome in outcomes:
            stdout.print(
                f"  {outcome.action:<13} {outcome.name} [dim]{outcome.partitions} partitions[/]"
            )

    run_command(action, as_json=json)
