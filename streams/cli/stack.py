"""`routekeel up | down | status`: the local stack from the command line."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.table import Table

from routekeel.infra.local.stack import LocalStack, ServiceStatus, StackConfig
from routekeel.streams.cli.output import (
    ConfigFlag,
    JsonFlag,
    SetFlag,
    emit_json,
    escape,
    run_command,
    settings_from,
    stderr,
    stdout,
)
from routekeel.streams.settings import Settings

COLOURS = {"healthy": "green", "starting": "yellow", "unhealthy": "red", "stopped": "dim"}


def open_stack(settings: Settings) -> LocalStack:
    """The local stack that these settings describe."""
    stack = settings.stack
    return LocalStack(
        StackConfig(
            state_dir=stack.state_dir,
            kafka_port=stack.kafka_port,
            registry_port=stack.registry_port,
            clickhouse_port=stack.clickhouse_port,
            kafka_heap_mb=stack.kafka_heap_mb,
            database=settings.clickhouse.database,
            username=settings.clickhouse.username,
        )
    )


def say(service: str, phase: str, detail: str) -> None:
    """Print one step of starting or stopping a service."""
    stderr.print(f"  [bold]{service:<11}[/] {phase:<10} [dim]{escape(detail)}[/]")


def up(config: ConfigFlag = None, set_: SetFlag = None, json: JsonFlag = False) -> None:
    """Start Kafka, the schema registry and the ClickHouse engine on this machine."""

    def action() -> None:
        local = open_stack(settings_from(config, set_).settings)
        endpoints = local.up(on_event=say)
        if json:
            emit_json({"ok": True, "services": [_row(s) for s in local.status()]})
            return
        stdout.print(
            f"Kafka {endpoints.kafka_bootstrap}, registry {endpoints.registry_url}, "
            f"ClickHouse http://{endpoints.clickhouse_host}:{endpoints.clickhouse_port}\n"
            "Every routekeel command in this folder now finds them; `routekeel down` stops them, the data stay."
        )

    run_command(action, as_json=json)


def down(config: ConfigFlag = None, set_: SetFlag = None, json: JsonFlag = False) -> None:
    """Stop what `up` started; the data stay."""

    def action() -> None:
        from routekeel.streams.demo.processes import stop_recorded

        settings = settings_from(config, set_).settings
        for name in stop_recorded(settings.stack.state_dir):
            say(name.split("-")[0], "stopped", name)
        services = open_stack(settings).down(on_event=say)
        if json:
            emit_json({"ok": True, "services": [_row(s) for s in services]})

    run_command(action, as_json=json)


def status(config: ConfigFlag = None, set_: SetFlag = None, json: JsonFlag = False) -> None:
    """Show pid, port, health, age and memory of each service; exit code 1 when one is not healthy."""

    def action() -> int:
        services = open_stack(settings_from(config, set_).settings).status()
        healthy = all(service.health == "healthy" for service in services)
        if json:
            emit_json({"ok": healthy, "services": [_row(s) for s in services]})
        else:
            stdout.print(_table(services))
        return 0 if healthy else 1

    run_command(action, as_json=json)


def _row(service: ServiceStatus) -> dict[str, Any]:
    return {name: str(value) if name == "log" else value for name, value in asdict(service).items()}


def _table(services: list[ServiceStatus]) -> Table:
    table = Table(box=None, header_style="bold")
    for title in ("service", "health", "pid", "port", "age", "memory", "log"):
        table.add_column(title)
    for service in services:
        table.add_row(
            service.name,
            f"[{COLOURS[service.health]}]{service.health}[/] {escape(service.detail)}",
            str(service.pid or "–"),
            str(service.port or "–"),
            f"{service.age_s:.0f} s" if service.age_s is not None else "–",
            f"{service.rss_mb:.0f} MB" if service.rss_mb is not None else "–",
            str(service.log),
        )
    return table
