"""The stored history as frames: pandas by default, Arrow on request.

The same rows that `routekeel sql` sees, chosen by session, model, time or source offset. Values are
bound on the server, never pasted into the query. An unknown value stays unknown: NULL in Arrow, NaN
or None in pandas.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, overload

from routekeel.streams.errors import ConfigurationError, MissingExtra, RoutekeelError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from routekeel.streams.settings import Settings

ORDER = "event_time_us, source_topic_id, source_partition, source_offset, layer"


class Choice(TypedDict, total=False):
    """Which rows; every condition given must hold.

    session_id, model, layer: of that session, model or layer id.
    since, until: event time, since ≤ t < until; a datetime with a time zone.
    partition, first_offset, end_offset: source coordinates, first ≤ offset < end.
    columns: only these columns, in this order (default: all).
    limit: at most so many rows, the earliest.
    settings: a settings tree (default: the ROUTEKEEL_* variables and $ROUTEKEEL_CONFIG).
    """

    session_id: str | None
    model: str | None
    layer: int | None
    since: datetime | None
    until: datetime | None
    partition: int | None
    first_offset: int | None
    end_offset: int | None
    columns: list[str] | None
    limit: int | None
    settings: Settings | None


_CONDITIONS = {
    "session_id": "session_id = {session_id:String}",
    "model": "model = {model:String}",
    "layer": "layer = {layer:Int32}",
    "since": "event_time_us >= fromUnixTimestamp64Micro({since:Int64}, 'UTC')",
    "until": "event_time_us < fromUnixTimestamp64Micro({until:Int64}, 'UTC')",
    "partition": "source_partition = {partition:Int32}",
    "first_offset": "source_offset >= {first_offset:Int64}",
    "end_offset": "source_offset < {end_offset:Int64}",
}


@overload
def telemetry_frame(*, arrow: Literal[True], **choice: Unpack[Choice]) -> pa.Table: ...
@overload
def telemetry_frame(*, arrow: Literal[False] = ..., **choice: Unpack[Choice]) -> pd.DataFrame: ...
def telemetry_frame(*, arrow: bool = False, **choice: Unpack[Choice]) -> Any:
    """Rows of the telemetry table: one per (chunk, layer), in event order; see Choice.

    A pandas.DataFrame, or a pyarrow.Table with `arrow=True`. Columns are the table's
    (docs/reference/schemas.md). Raises MissingExtra without the app's packages, ConfigurationError
    for a column that there is not, ServiceUnavailable where ClickHouse does not answer.

        frame = telemetry_frame(session_id="s-1", columns=["position", "layer", "g_base"])
        frame.groupby("layer").g_base.mean()
    """
    return _frame("telemetry", arrow, choice)


@overload
def weights_frame(*, arrow: Literal[True], **choice: Unpack[Choice]) -> pa.Table: ...
@overload
def weights_frame(*, arrow: Literal[False] = ..., **choice: Unpack[Choice]) -> pd.DataFrame: ...
def weights_frame(*, arrow: bool = False, **choice: Unpack[Choice]) -> Any:
    """Rows of the weights table: one per (chunk, layer), with `w_hat` float32[E] in each.

    As telemetry_frame; in pandas `w_hat` holds NumPy arrays.
    """
    return _frame("weights", arrow, choice)


def _frame(table_name: str, arrow: bool, choice: Choice) -> Any:
    try:
        import pandas
        import pyarrow
        from clickhouse_connect.driver.exceptions import (
            ClickHouseError,
            DatabaseError,
            OperationalError,
        )

        from routekeel.streams.history.sql import QUERY_TIMEOUT_S
        from routekeel.streams.history.store import connect, unavailable
        from routekeel.streams.settings import load_settings
    except ImportError as error:
        raise MissingExtra("reading the history", "app") from error
    del pandas, pyarrow
    settings = choice.get("settings") or load_settings().settings
    query, parameters = _query(table_name, choice)
    place = settings.clickhouse
    client = connect(place, database=place.database, send_receive_timeout=QUERY_TIMEOUT_S)
    try:
        found = client.query_arrow(
            query, parameters=parameters, use_strings=True, settings={"readonly": 2}
        )
    except OperationalError as error:
        raise unavailable(place, error) from error
    except (DatabaseError, ClickHouseError) as error:
        raise RoutekeelError(str(error).splitlines()[0]) from error
    finally:
        client.close()
    return found if arrow else found.to_pandas()


def _query(table_name: str, choice: Choice) -> tuple[str, dict[str, Any]]:
    from routekeel.schemas.clickhouse import name as quoted
    from routekeel.schemas.tables import TABLES

    unknown = set(choice) - set(Choice.__annotations__)
    if unknown:
        raise ConfigurationError(f"there is no option {sorted(unknown)[0]!r}")
    (table,) = [table for table in TABLES if table.name == table_name]
    known = [column.name for column in table.columns]
    columns = choice.get("columns") or known
    for name in columns:
        if name not in known:
            raise ConfigurationError(
                f"{table_name} has no column {name!r}", "docs/reference/schemas.md lists them"
            )
    given: dict[str, Any] = {name: choice.get(name) for name in _CONDITIONS}
    parameters = {name: value for name, value in given.items() if value is not None}
    for name in ("since", "until"):
        if name in parameters:
            parameters[name] = _micros(name, parameters[name])
    where = " AND ".join(_CONDITIONS[name] for name in parameters) or "1"
    query = f"SELECT {', '.join(map(quoted, columns))} FROM {quoted(table_name)} WHERE {where} ORDER BY {ORDER}"
    limit = choice.get("limit")
    if limit is not None:
        query += " LIMIT {limit:UInt64}"
        parameters["limit"] = limit
    return query, parameters


def _micros(name: str, moment: datetime) -> int:
    if moment.tzinfo is None:
        raise ConfigurationError(
            f"{name} has no time zone",
            "datetime(…, tzinfo=timezone.utc) says which moment is meant",
        )
    return round(moment.timestamp() * 1_000_000)
