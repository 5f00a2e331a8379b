"""Opens ClickHouse and applies the tables; errors say what is away and what to do.

The tables come from schemas/ alone. Applying is safe to repeat: it creates what is missing, adds
columns that a newer version has, and never drops anything.
"""

from __future__ import annotations

from typing import Any

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from routekeel.schemas.clickhouse import create_statements
from routekeel.schemas.clickhouse import name as quoted
from routekeel.schemas.tables import TABLES
from routekeel.streams.errors import RoutekeelError, ServiceUnavailable
from routekeel.streams.settings import ClickHouseSettings

CONNECT_TIMEOUT_S = 5


def connect(settings: ClickHouseSettings, *, database: str = "default", **options: Any) -> Client:
    """A client; queries name their database or use `database`. Raises ServiceUnavailable."""
    arguments: dict[str, Any] = {
        "host": settings.host,
        "port": settings.port,
        "username": settings.username,
        "password": settings.password.get_secret_value() if settings.password else "",
        "secure": settings.secure,
        "ca_cert": str(settings.ssl_ca_file) if settings.ssl_ca_file else None,
        "database": database,
        "connect_timeout": CONNECT_TIMEOUT_S,
        "send_receive_timeout": settings.receive_timeout_s,
        "autogenerate_session_id": False,
    }
    try:
        return clickhouse_connect.get_client(**(arguments | options))
    except (ClickHouseError, OSError) as error:
        raise unavailable(settings, error) from error


def unavailable(settings: ClickHouseSettings, error: BaseException) -> ServiceUnavailable:
    """The error for a ClickHouse that does not answer."""
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return ServiceUnavailable(
        f"ClickHouse at {settings.host}:{settings.port} does not answer: {first}",
        "routekeel up starts a local one; routekeel config shows where the address comes from",
    )


def apply_schema(
    client: Client, settings: ClickHouseSettings, ttl_days: dict[str, int] | None = None
) -> list[str]:
    """Create the database and the tables, add missing columns; the columns added. Raises RoutekeelError."""
    database = settings.database
    try:
        for statement in create_statements(
            database, cluster=settings.cluster or "", ttl_days=ttl_days
        ):
            client.command(statement)
        return _add_missing_columns(client, database)
    except ClickHouseError as error:
        raise RoutekeelError(
            f"the tables cannot be created in {database}: {str(error).splitlines()[0]}"
        ) from error


def _add_missing_columns(client: Client, database: str) -> list[str]:
    rows = client.query(
        "SELECT table, name FROM system.columns WHERE database = {database:String}",
        parameters={"database": database},
    ).result_rows
    have = {(str(table), str(column)) for table, column in rows}
    added = []
    for table in TABLES:
        for column in table.columns:
            if (table.name, column.name) not in have:
                place = f"{quoted(database)}.{quoted(table.name)}"
                client.command(
                    f"ALTER TABLE {place} ADD COLUMN IF NOT EXISTS {quoted(column.name)} {column.type}"
                )
                added.append(f"{table.name}.{column.name}")
    return added
