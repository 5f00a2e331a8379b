"""The ClickHouse DDL of every table, for one server and for a cluster, from the same values.

Partitions and TTL follow `log_time`, Kafka's time of the record, not the event's: a client with a
broken clock may send any event time, and each of its days would be a partition (ClickHouse refuses
an insert that touches more than 100). Kafka's time is close to now and the same on every retry,
which `now()` is not: a block repeated after midnight would land in another partition, where its
deduplication token is unknown. Queries by event time are pruned by the sorting key instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from routekeel.schemas.columns import FLOAT_CODEC, Column
from routekeel.schemas.tables import TABLES, Table

DEDUPLICATION_WINDOW: Final = 10_000
DATABASE: Final = "routekeel"

_LAST_OFFSET = """\
    PROJECTION last_offset (
        SELECT
            log_topic_id, log_partition, source_topic_id, source_partition,
            max(log_offset), max(source_offset)
        GROUP BY log_topic_id, log_partition, source_topic_id, source_partition
    )"""
_BY_SESSION = "    PROJECTION by_session (SELECT _part_offset ORDER BY session_id)"
_BY_SOURCE = """\
    PROJECTION by_source (
        SELECT _part_offset ORDER BY source_topic_id, source_partition, source_offset
    )"""


def create_statements(
    database: str = DATABASE,
    *,
    cluster: str = "",
    ttl_days: Mapping[str, int] | None = None,
    float_codec: str = FLOAT_CODEC,
) -> list[str]:
    """The statements that create the database and every table, each one idempotent.

    `cluster` names a ClickHouse cluster: then each table is a replicated `<name>_local` behind a
    distributed `<name>`, sharded by log partition, so that a batch lands on one shard whole and its
    token holds. `ttl_days` overrides a table's days by its name; 0 keeps rows for ever.
    `float_codec` replaces ALP where a server lacks it ('ZSTD(1)' or 'Gorilla, ZSTD(1)').

    >>> create_statements("demo")[0]
    'CREATE DATABASE IF NOT EXISTS `demo`'
    >>> "INTERVAL 7 DAY" in create_statements(ttl_days={"telemetry": 7})[1]
    True
    """
    days = dict(ttl_days or {})
    unknown = set(days) - {table.name for table in TABLES}
    if unknown:
        raise ValueError(f"ttl_days names tables that do not exist: {', '.join(sorted(unknown))}")
    on_cluster = f" ON CLUSTER {name(cluster)}" if cluster else ""
    out = [f"CREATE DATABASE IF NOT EXISTS {name(database)}{on_cluster}"]
    for table in TABLES:
        keep = days.get(table.name, table.ttl_days)
        out.append(create_table(table, database, cluster, keep, float_codec))
        if cluster:
            out.append(_distributed(table, database, cluster))
    return out


def create_table(
    table: Table,
    database: str = DATABASE,
    cluster: str = "",
    ttl_days: int | None = None,
    float_codec: str = FLOAT_CODEC,
) -> str:
    """The CREATE TABLE of one table; with a cluster, of its replicated local part."""
    parts = [_column(column, float_codec) for column in table.columns]
    parts.append(_LAST_OFFSET)
    if table.by_session:
        parts.append(_BY_SESSION)
    if table.by_source:
        parts.append(_BY_SOURCE)
    local = f"{table.name}_local" if cluster else table.name
    lines = [
        f"CREATE TABLE IF NOT EXISTS {name(database)}.{name(local)}"
        + (f" ON CLUSTER {name(cluster)}" if cluster else ""),
        "(",
        ",\n".join(parts),
        ")",
        f"ENGINE = {_engine(cluster)}",
        "PARTITION BY toYYYYMMDD(log_time)",
        f"ORDER BY ({', '.join(table.order_by)})",
    ]
    days = table.ttl_days if ttl_days is None else ttl_days
    if days:
        lines.append(f"TTL toDateTime(log_time) + INTERVAL {int(days)} DAY")
    lines.append("SETTINGS")
    lines.append(
        ",\n".join(f"    {key} = {value}" for key, value in _settings(cluster, float_codec))
    )
    lines.append(f"COMMENT {text(table.doc)}")
    return "\n".join(lines)


def _settings(cluster: str, float_codec: str) -> list[tuple[str, str]]:
    window = "replicated_deduplication_window" if cluster else "non_replicated_deduplication_window"
    out = [
        (window, str(DEDUPLICATION_WINDOW)),
        ("ttl_only_drop_parts", "1"),
        # A repair deletes rows; without this a table with projections refuses that.
        ("lightweight_mutation_projection_mode", "'rebuild'"),
    ]
    if cluster:
        # The token must outlive any outage of the sink, not the hour that is the default.
        out.append(("replicated_deduplication_window_seconds", str(14 * 86_400)))
    if "ALP" in float_codec:
        out.append(("enable_alp_codec", "1"))
    return out


def _engine(cluster: str) -> str:
    if not cluster:
        return "MergeTree"
    return "ReplicatedMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')"


def _distributed(table: Table, database: str, cluster: str) -> str:
    here, local = f"{name(database)}.{name(table.name)}", f"{table.name}_local"
    return (
        f"CREATE TABLE IF NOT EXISTS {here} ON CLUSTER {name(cluster)}\n"
        f"AS {name(database)}.{name(local)}\n"
        f"ENGINE = Distributed({text(cluster)}, {text(database)}, {text(local)}, log_partition)"
    )


def _column(column: Column, float_codec: str) -> str:
    codec = float_codec if column.codec == FLOAT_CODEC else column.codec
    default = f" DEFAULT {column.default}" if column.default else ""
    return (
        f"    {name(column.name)} {column.type}{default} COMMENT {text(column.doc)} CODEC({codec})"
    )


def name(identifier: str) -> str:
    """An identifier in backticks. Raises ValueError for one that is not plain."""
    if not identifier or not all(c.isalnum() or c in "_-{}" for c in identifier):
        raise ValueError(f"not a plain identifier: {identifier!r}")
    return f"`{identifier}`"


def text(value: str) -> str:
    r"""A string literal.

    >>> print(text("it's"))
    'it\'s'
    """
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
