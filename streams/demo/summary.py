"""What the demo's run left in ClickHouse, asked back in SQL: the figures are the store's, not ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

COUNTS = """
SELECT uniqExact(source_topic_id, source_partition, source_offset) AS chunks,
       count() AS telemetry_rows,
       count() - uniqExact(source_topic_id, source_partition, source_offset, layer) AS duplicated,
       sum(tokens) AS routing_decisions,
       uniqExact(session_id) AS sessions
FROM `{database}`.telemetry WHERE startsWith(session_id, {{prefix:String}})
"""
WEIGHTS = "SELECT count() FROM `{database}`.weights WHERE startsWith(session_id, {{prefix:String}})"
DEAD = """
SELECT uniqExact(source_topic_id, source_partition, source_offset) FROM `{database}`.dead_letters
WHERE startsWith(ifNull(key, ''), {{prefix:String}})
"""
BY_KIND = """
SELECT task_type AS prompts, layer,
       round(sum(a_star * tokens) / sum(tokens), 3) AS `A*`,
       round(sum(route_entropy * tokens) / sum(tokens), 3) AS entropy,
       round(sum(g_base * tokens) / sum(tokens), 4) AS `G base`,
       round(sum(g_controlled * tokens) / sum(tokens), 4) AS `G ctrl`,
       round(sum(winner_flips_base) / sum(tokens), 3) AS flips,
       round(sum(winner_flips_controlled) / sum(tokens), 3) AS `ŵ flips`,
       round(sum(load_cv * tokens) / sum(tokens), 2) AS `load cv`
FROM `{database}`.telemetry
WHERE startsWith(session_id, {{prefix:String}}) AND tokens > 0
GROUP BY task_type, layer ORDER BY task_type, layer
"""


@dataclass(frozen=True, slots=True)
class Stored:
    """Counts of one run's rows."""

    chunks: int
    telemetry_rows: int
    duplicated: int
    routing_decisions: int
    sessions: int
    weights_rows: int
    dlq: int


def stored(client: Any, database: str, prefix: str) -> Stored:
    """Count the run's rows."""

    def ask(query: str) -> list[Any]:
        return list(
            client.query(query.format(database=database), parameters={"prefix": prefix}).first_row
        )

    chunks, rows, duplicated, decisions, sessions = ask(COUNTS)
    return Stored(chunks, rows, duplicated, decisions, sessions, ask(WEIGHTS)[0], ask(DEAD)[0])


def by_kind(client: Any, database: str, prefix: str) -> tuple[list[str], list[list[Any]]]:
    """Means per kind of prompt and layer: (column names, rows)."""
    result = client.query(BY_KIND.format(database=database), parameters={"prefix": prefix})
    return list(result.column_names), [list(row) for row in result.result_rows]


def summary_view(report: dict[str, Any], columns: list[str], rows: list[list[Any]]) -> Group:
    """The summary for the terminal."""
    table = Table(
        title="by kind of prompt and layer, from ClickHouse",
        box=None,
        header_style="bold",
        title_justify="left",
    )
    for column in columns:
        table.add_column(column, justify="left" if column == "prompts" else "right")
    for row in rows:
        table.add_row(*(str(value) for value in row))
    whole = report["missing"] == report["duplicated"] == report["dlq"] == report["dropped"] == 0
    verdict = Text(
        f"{report['chunks']} chunks of {report['sessions']} sessions, "
        f"{report['routing_decisions']:,} routing decisions → "
        f"{report['telemetry_rows']:,} telemetry and {report['weights_rows']:,} weights rows; "
        f"missing {report['missing']}, duplicated {report['duplicated']}, dead letters {report['dlq']}, "
        f"dropped {report['dropped']}; emit → visible row p95 {report['latency_p95_ms']} ms",
        style="bold green" if whole else "bold red",
    )
    return Group(table, Text(""), verdict)
