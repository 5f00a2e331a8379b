"""Counts what the tables hold of one log partition, a block of source offsets at a time.

Each block is one query over the projection by source, so memory is bounded on both sides however
long the log is, and no offset travels that is not shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from clickhouse_connect.driver.client import Client

from routekeel.streams.topology.cadence import Cadence

BLOCK_OFFSETS: Final = 1 << 16
OFFSETS_SHOWN: Final = 10

_WHERE: Final = (
    "source_topic_id = {topic_id:String} AND source_partition = {partition:Int32} "
    "AND source_offset >= {low:Int64} AND source_offset < {high:Int64}"
)


def _completes(every: str) -> str:
    """Cadence's `crosses` in SQL."""
    stop = f"intDiv(position + steps, greatest({every}, 1))"
    return f"({every} > 0 AND {stop} > intDiv(position, greatest({every}, 1)))"


# A route has to be there with what completes so many tokens, and where the state began anew. That more are
# published, with a session's first chunk and on change, follows from the log alone: a replay knows.
_DUE: Final = (
    f"tokens_applied > 0 AND (state_reset != '' OR {_completes('{every:Int64}')} "
    f"OR {_completes('{state_every:Int64}')})"
)
# Per source offset: rows and distinct layers in telemetry and in weights, and dead letters.
_BLOCK: Final = f"""
SELECT
    countIf(rows > 0), countIf(letters > 0), max(source_offset),
    sum(rows - layers), sum(w_rows - w_layers),
    countIf((due OR w_layers > 0) AND w_layers < layers), count()
FROM (
    SELECT
        source_offset,
        countIf(kind = 0) AS rows, uniqExactIf(layer, kind = 0) AS layers,
        countIf(kind = 1) AS w_rows, uniqExactIf(layer, kind = 1) AS w_layers,
        countIf(kind = 2) AS letters, max(is_due) AS due
    FROM (
        SELECT source_offset, layer, 0 AS kind, {_DUE} AS is_due
        FROM telemetry WHERE {_WHERE}
        UNION ALL
        SELECT source_offset, layer, 1, 0 FROM weights WHERE {_WHERE}
        UNION ALL
        SELECT source_offset, 0, 2, 0 FROM dead_letters WHERE {_WHERE} AND stage = 'worker'
    )
    GROUP BY source_offset
)
WHERE rows > 0 OR letters > 0
"""
_HOLES: Final = f"""
SELECT toInt64(number) AS hole
FROM numbers(toUInt64({{low:Int64}}), toUInt64({{high:Int64}} - {{low:Int64}}))
WHERE hole NOT IN (SELECT source_offset FROM telemetry WHERE {_WHERE})
AND hole NOT IN (SELECT source_offset FROM dead_letters WHERE {_WHERE} AND stage = 'worker')
ORDER BY hole LIMIT {{limit:UInt32}}
"""


@dataclass(slots=True)
class Held:
    """What the tables hold of a range of offsets.

    `accounted` offsets have telemetry rows or a dead letter; `last` is the largest of them, −1 where
    none. `duplicated` counts rows beyond the first of their (offset, layer); `weights_missing`
    counts offsets whose route was due and that lack a layer in the weights.
    """

    rows: int = 0
    letters: int = 0
    accounted: int = 0
    last: int = -1
    duplicated: int = 0
    weights_duplicated: int = 0
    weights_missing: int = 0

    def add(self, other: Held) -> None:
        """Add what a further range holds."""
        self.rows += other.rows
        self.letters += other.letters
        self.accounted += other.accounted
        self.last = max(self.last, other.last)
        self.duplicated += other.duplicated
        self.weights_duplicated += other.weights_duplicated
        self.weights_missing += other.weights_missing


def count_block(
    client: Client, topic_id: str, partition: int, low: int, high: int, cadence: Cadence
) -> Held:
    """What is held of the offsets low…high − 1, of at most BLOCK_OFFSETS; routes by the worker's cadence."""
    every = {"every": cadence.every_tokens, "state_every": cadence.state_every_tokens}
    parameters = _range(topic_id, partition, low, high) | every
    rows = client.query(_BLOCK, parameters=parameters).first_row
    letters, last, duplicated, w_duplicated, w_missing, accounted = (int(x) for x in rows[1:])
    return Held(
        int(rows[0]),
        letters,
        accounted,
        last if accounted else -1,
        duplicated,
        w_duplicated,
        w_missing,
    )


def first_holes(
    client: Client, topic_id: str, partition: int, low: int, high: int, limit: int
) -> list[int]:
    """The first offsets of low…high − 1 that are not accounted for."""
    parameters = _range(topic_id, partition, low, high) | {"limit": limit}
    return [int(row[0]) for row in client.query(_HOLES, parameters=parameters).result_rows]


def _range(topic_id: str, partition: int, low: int, high: int) -> dict[str, Any]:
    return {"topic_id": topic_id, "partition": partition, "low": low, "high": high}
