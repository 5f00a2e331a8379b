"""The reference page of every record and table, as Markdown, from the declarations."""

from __future__ import annotations

from collections.abc import Iterable

from routekeel.schemas.columns import FLOAT_CODEC
from routekeel.schemas.fields import REQUIRED, Field, Record
from routekeel.schemas.kinds import Enum, Kind, Mapping, Matrix, Nested, Scalar, Sequence
from routekeel.schemas.records import RECORDS
from routekeel.schemas.tables import TABLES, Table

_HEAD = f"""\
# Records and tables

Rendered from `schemas/records/` by `routekeel schemas --write`; a test fails where it differs.

Records travel over Kafka as Avro with Confluent framing: a zero byte, the schema id as a big-endian
int32, the body. A matrix is `bytes`: little-endian, C order, with the dtype and axes given here.
Times are µs since 1970, UTC. A field marked `?` may be null. `= x` is the default. An enum symbol
that a reader does not know yet becomes the enum's first.

In ClickHouse a NaN is NULL (inside an array it stays NaN), and a float is rounded to the decimals
given here and stored as `{FLOAT_CODEC}`. Every table has a projection `last_offset` (the largest
log and source offset per topic id and partition), is partitioned by the day of `log_time`, and
loses whole parts when they are older than its TTL.
"""


def reference() -> str:
    """The text of docs/reference/schemas.md.

    >>> reference().splitlines()[0]
    '# Records and tables'
    """
    parts = [_HEAD, "## Records\n"]
    parts.extend(_record(record) for record in RECORDS)
    parts.append("## Tables\n")
    parts.extend(_table(table) for table in TABLES)
    return "\n".join(parts)


def _record(record: Record) -> str:
    lines = [f"### {record.name} v{record.version}\n", f"{record.doc}\n"]
    lines.append(_fields(record.fields))
    for field in record:
        if isinstance(field.kind, Nested):
            lines.append(f"#### {field.kind.name} (field `{field.name}` of {record.name})\n")
            lines.append(_fields(field.kind.fields))
    return "\n".join(lines)


def _fields(fields: tuple[Field, ...]) -> str:
    head = ("field", "type", "column", "unit", "range", "meaning")
    return _rows(
        head,
        (
            (
                f"`{field.name}`",
                avro_type(field),
                ", ".join(f"`{column}`" for column in _columns_of(field)),
                field.unit,
                field.range,
                field.doc,
            )
            for field in fields
        ),
    )


def avro_type(field: Field) -> str:
    """How the page writes a field's type, e.g. `float? = null` or `f4[layers, experts]`."""
    out = _kind(field.kind) + ("?" if field.nullable else "")
    if field.default is not REQUIRED:
        out += f' = "{field.default}"' if isinstance(field.default, str) else f" = {field.default}"
    return out


def _kind(kind: Kind) -> str:
    match kind:
        case Scalar():
            return kind.logical or kind.avro
        case Enum():
            return "enum: " + ", ".join(kind.symbols)
        case Sequence():
            return f"array of {kind.item.avro}{'?' if kind.item_nullable else ''}"
        case Matrix():
            return f"bytes: {kind.dtype.lstrip('<|')}[{', '.join(kind.dims)}]"
        case Nested():
            return f"record {kind.name}"
        case Mapping():
            return "map of string"


def _columns_of(field: Field) -> list[str]:
    return [
        f"{table.name}.{column.name}"
        for table in TABLES
        for column in table.columns
        if column.field is field
    ]


def _table(table: Table) -> str:
    lines = [f"### {table.name}\n", f"{table.doc} One row per {table.grain.value}.\n"]
    lines.append(f"From {table.record.name}. Sorted by `{', '.join(table.order_by)}`.")
    keep = f"{table.ttl_days} days" if table.ttl_days else "for ever"
    lines.append(f"Kept {keep}, by default.\n")
    head = ("column", "type", "decimals", "codec", "meaning")
    rows = (
        (
            f"`{column.name}`",
            f"`{column.type}`",
            "" if column.decimals is None else str(column.decimals),
            column.codec,
            column.doc,
        )
        for column in table.columns
    )
    lines.append(_rows(head, rows))
    return "\n".join(lines)


def _rows(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines.extend("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
    return "\n".join(lines) + "\n"
