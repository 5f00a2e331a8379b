"""The ClickHouse tables as values, derived from the records: which column comes from which field.

`clickhouse.py` renders them as DDL, `rows.py` fills them, `markdown.py` describes them; none of the
three says a column's name, type or precision itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from routekeel.schemas.columns import (
    DELTA_CODEC,
    LABEL_TYPE,
    Column,
    Origin,
    matrix_column,
    scalar_column,
)
from routekeel.schemas.fields import Record
from routekeel.schemas.kinds import Matrix
from routekeel.schemas.matrices import nested
from routekeel.schemas.records import DEAD_LETTER, TELEMETRY, WEIGHTS


class Grain(Enum):
    """What one row stands for."""

    CHUNK = "chunk"
    LAYER = "(chunk, layer)"
    TOKEN = "(chunk, token, layer)"


@dataclass(frozen=True, slots=True)
class Table:
    """One table: its columns, what a row stands for, its sorting key and how long rows are kept.

    `needs` names a field without which (null or empty) a record makes no row here.
    """

    name: str
    doc: str
    record: Record
    grain: Grain
    columns: tuple[Column, ...]
    order_by: tuple[str, ...]
    ttl_days: int
    by_session: bool = False
    by_source: bool = False
    needs: str = ""

    @property
    def filled(self) -> tuple[Column, ...]:
        """The columns that an insert brings, in order: all but those that ClickHouse fills in."""
        return tuple(c for c in self.columns if c.origin is not Origin.INSERT)

    def column(self, name: str) -> Column:
        """The column of that name; KeyError where there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(f"{self.name} has no column {name!r}")


LOG_COLUMNS: Final = (
    Column("log_topic", LABEL_TYPE, "Topic that the sink read this row from.", Origin.LOG),
    Column("log_topic_id", LABEL_TYPE, "Kafka's id of that topic.", Origin.LOG),
    Column("log_partition", "Int32", "Partition of that topic.", Origin.LOG),
    Column("log_offset", "Int64", "Offset in that partition.", Origin.LOG, DELTA_CODEC),
    Column(
        "log_time", "DateTime64(3, 'UTC')", "Kafka's time of the record.", Origin.LOG, DELTA_CODEC
    ),
)
INSERTED_AT: Final = Column(
    "inserted_at",
    "DateTime64(3, 'UTC')",
    "When the row was inserted.",
    Origin.INSERT,
    DELTA_CODEC,
    default="now64(3)",
)
LAYER_ID: Final = Column("layer", "Int32", "Layer id.", Origin.LAYER_ID)

_LAYER_DIMS = {("layers",): Origin.LAYER, ("layers", "experts"): Origin.LAYER_VECTOR}
_TOKEN_DIMS = {
    ("steps",): Origin.TOKEN,
    ("steps", "layers"): Origin.TOKEN_LAYER,
    ("steps", "layers", "experts"): Origin.TOKEN_LAYER_VECTOR,
}


def _chunk_columns(record: Record, *names: str) -> tuple[Column, ...]:
    return tuple(scalar_column(record.field(name)) for name in names)


def _layer_table_columns(record: Record) -> tuple[Column, ...]:
    out: list[Column] = []
    for field in record:
        if not field.stored:
            continue
        if field.name == "layers":
            out.append(LAYER_ID)
        elif isinstance(field.kind, Matrix):
            out.append(matrix_column(field, _LAYER_DIMS))
        else:
            out.append(scalar_column(field))
    return (*LOG_COLUMNS, *out, INSERTED_AT)


_SOURCE = ("source_topic", "source_topic_id", "source_partition", "source_offset")
_SORTED = ("model", "toStartOfHour(event_time_us)", "session_id", "layer", "position")

TELEMETRY_TABLE: Final = Table(
    "telemetry",
    "Metrics of one layer over the tokens of one chunk.",
    TELEMETRY,
    Grain.LAYER,
    _layer_table_columns(TELEMETRY),
    _SORTED,
    ttl_days=90,
    by_session=True,
    by_source=True,
)

WEIGHTS_TABLE: Final = Table(
    "weights",
    "The smoothed route of one layer after one chunk.",
    WEIGHTS,
    Grain.LAYER,
    _layer_table_columns(WEIGHTS),
    _SORTED,
    ttl_days=14,
    by_session=True,
    by_source=True,
)

_TOKEN_NAMES = {"token_ids": "token_id"}
_POSITION = Column(
    "position",
    "Int64",
    "Position of the token in the request.",
    Origin.TOKEN_POSITION,
    DELTA_CODEC,
    TELEMETRY.field("position"),
)

TOKENS_TABLE: Final = Table(
    "telemetry_tokens",
    "One token at one layer, for sampled sessions.",
    TELEMETRY,
    Grain.TOKEN,
    (
        *LOG_COLUMNS,
        *_chunk_columns(TELEMETRY, *_SOURCE, "session_id", "request_id", "model"),
        *_chunk_columns(TELEMETRY, "model_revision", "event_time_us", "phase"),
        *_chunk_columns(TELEMETRY, "policy_version", "policy_arm"),
        _POSITION,
        LAYER_ID,
        *(
            matrix_column(field, _TOKEN_DIMS, _TOKEN_NAMES.get(field.name))
            for field in nested(TELEMETRY, "token_rows").fields
            if isinstance(field.kind, Matrix)
        ),
        INSERTED_AT,
    ),
    _SORTED,
    ttl_days=7,
    by_session=True,
    needs="token_rows",
)

SNAPSHOTS_TABLE: Final = Table(
    "state_snapshots",
    "State of a session after one chunk: where a replay may start.",
    WEIGHTS,
    Grain.CHUNK,
    (
        *LOG_COLUMNS,
        *_chunk_columns(WEIGHTS, *_SOURCE, "session_id", "model", "model_revision"),
        *_chunk_columns(WEIGHTS, "event_time_us", "position", "state"),
        INSERTED_AT,
    ),
    ("source_topic_id", "source_partition", "source_offset"),
    ttl_days=30,
    needs="state",
)

DEAD_LETTERS_TABLE: Final = Table(
    "dead_letters",
    "Records that were refused, whole.",
    DEAD_LETTER,
    Grain.CHUNK,
    (*LOG_COLUMNS, *(scalar_column(field) for field in DEAD_LETTER if field.stored), INSERTED_AT),
    ("source_topic_id", "source_partition", "source_offset"),
    ttl_days=90,
)

TABLES: Final = (
    TELEMETRY_TABLE,
    TOKENS_TABLE,
    WEIGHTS_TABLE,
    SNAPSHOTS_TABLE,
    DEAD_LETTERS_TABLE,
)


def tables_of(record: Record) -> tuple[Table, ...]:
    """The tables that a record's topic fills, in the order in which to insert a batch.

    The last one has rows of every record, so its largest `log_offset` says how far all of them
    are; a batch that stopped half-way is inserted again under the same tokens.

    >>> [table.name for table in tables_of(TELEMETRY)]
    ['telemetry_tokens', 'telemetry']
    """
    order = (TOKENS_TABLE, TELEMETRY_TABLE, SNAPSHOTS_TABLE, WEIGHTS_TABLE, DEAD_LETTERS_TABLE)
    return tuple(table for table in order if table.record is record)
