"""Read-only queries for `routekeel sql`, with errors a person can act on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError, OperationalError

from routekeel.streams.errors import RoutekeelError
from routekeel.streams.history.store import connect, unavailable
from routekeel.streams.settings import Settings

QUERY_TIMEOUT_S = 600


class QueryFailed(RoutekeelError):
    """ClickHouse refused the query or could not run it."""


@dataclass(frozen=True, slots=True)
class QueryResult:
    """Columns and rows of an answer; NULL is None."""

    columns: Sequence[str]
    types: Sequence[str]
    rows: Sequence[Sequence[Any]]


def run_query(
    settings: Settings, query: str, parameters: Mapping[str, Any] | None = None
) -> QueryResult:
    """Run a read-only query in the configured database.

    Raises ServiceUnavailable when ClickHouse does not answer, QueryFailed with its message otherwise.
    """
    clickhouse = settings.clickhouse
    client = connect(clickhouse, database=clickhouse.database, send_receive_timeout=QUERY_TIMEOUT_S)
    try:
        result = client.query(
            query.strip().rstrip(";"), parameters=dict(parameters or {}), settings={"readonly": 2}
        )
    except OperationalError as error:
        raise unavailable(clickhouse, error) from error
    except (DatabaseError, ClickHouseError) as error:
        raise QueryFailed(_first_lines(error), "docs/SQL.md has queries to start from") from error
    finally:
        client.close()
    return QueryResult(
        result.column_names, [str(t.name) for t in result.column_types], result.result_rows
    )


def _first_lines(error: Exception) -> str:
    text = str(error).strip()
    cut = text.find("(for url")
    return (text[:cut] if cut > 0 else text).strip()[:2000]
