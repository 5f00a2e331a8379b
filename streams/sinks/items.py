"""What the sink handles: one record of a log, decoded or refused, and which tables it fills.

Decoding asks the registry only for schema ids it has not seen. A registry that does not answer
condemns nothing: the record waits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from routekeel.schemas.codec import Decoder
from routekeel.schemas.errors import (
    BadFraming,
    SchemaError,
    UnknownSchemaId,
    WrongRecord,
)
from routekeel.schemas.fields import Record
from routekeel.schemas.records import DEAD_LETTER, TELEMETRY, WEIGHTS
from routekeel.schemas.registry import SchemaRegistry
from routekeel.schemas.routes import with_full_route
from routekeel.schemas.tables import Table, tables_of
from routekeel.streams.settings import Settings
from routekeel.streams.topology.records import SourceRecord

# What a decoded record costs beside its bytes: a dict, its keys' values, some forty objects.
DECODED_OVERHEAD_BYTES: Final = 6 * 1024

_CLASSES: Final[tuple[tuple[type[SchemaError], str], ...]] = (
    (BadFraming, "bad_framing"),
    (UnknownSchemaId, "unknown_schema_id"),
    (WrongRecord, "wrong_record"),
)


class Refused(NamedTuple):
    """Why a record cannot become rows: a machine-readable class and a sentence."""

    error_class: str
    message: str


@dataclass(frozen=True, slots=True)
class Item:
    """One record of a log. Either `fields` holds its decoded value or `refused` says why not.

    `rows` is how many rows it makes in all tables together, `size_bytes` what it occupies here.
    """

    record: SourceRecord
    fields: Mapping[str, Any] | None
    refused: Refused | None
    rows: int
    size_bytes: int

    @property
    def offset(self) -> int:
        """Its offset in the log it was read from."""
        return self.record.offset

    def source(self) -> tuple[tuple[str, int], int]:
        """((topic id, partition), offset) of what the record was computed from."""
        assert self.fields is not None
        fields = self.fields
        return (fields["source_topic_id"], fields["source_partition"]), fields["source_offset"]


def refused_item(record: SourceRecord, error_class: str, message: str) -> Item:
    """A record that goes to the dead letters."""
    size = len(record.value or b"") + len(record.key or b"")
    return Item(record, None, Refused(error_class, message), 0, size)


@dataclass(frozen=True, slots=True)
class Route:
    """One topic: what its records are and which tables they fill, in the order of insertion.

    The last table has a row for every record that is no repeat, so its largest `log_offset` says
    from where to go on; `by_lookup` marks a table whose repeats are looked up one by one.
    """

    topic: str
    record: Record
    tables: tuple[Table, ...]
    by_lookup: bool = False

    @property
    def anchor(self) -> str:
        """The name of the table that says how far the topic is stored."""
        return self.tables[-1].name


def routes_of(settings: Settings) -> dict[str, Route]:
    """The topics that the sink reads, by name."""
    topics = settings.topics
    return {
        topics.telemetry: Route(topics.telemetry, TELEMETRY, tables_of(TELEMETRY)),
        topics.weights: Route(topics.weights, WEIGHTS, tables_of(WEIGHTS)),
        topics.dlq: Route(topics.dlq, DEAD_LETTER, tables_of(DEAD_LETTER), by_lookup=True),
    }


class ItemDecoder:
    """Decodes the records of one topic."""

    def __init__(self, route: Route, registry: SchemaRegistry) -> None:
        self._decoder = Decoder(route.record, registry)

    def decode(self, record: SourceRecord) -> Item:
        """The record as an item, refused where its bytes are wrong. Raises RegistryUnavailable."""
        value = record.value
        if value is None:
            return refused_item(record, "empty_value", "the record has no value")
        try:
            fields: Mapping[str, Any] = self._decoder.decode(value)
            if self._decoder.record is WEIGHTS:
                fields = with_full_route(fields)
        except SchemaError as error:
            name = next((name for kind, name in _CLASSES if isinstance(error, kind)), "bad_body")
            return refused_item(record, name, str(error))
        rows = _rows(fields)
        # Every (token, layer) row takes a byte at least, so a larger claim is no valid shape. Found
        # here because building its columns would first ask for the memory.
        if rows > 2 * len(value) + 1:
            message = f"it claims {rows} rows in {len(value)} bytes"
            return refused_item(record, "bad_shape", message)
        return Item(record, fields, None, rows, len(value) + DECODED_OVERHEAD_BYTES)


def _rows(fields: Mapping[str, Any]) -> int:
    if "layers" not in fields:
        return 1
    layers = len(fields["layers"])
    token_rows = fields.get("token_rows")
    return layers * (1 + max(0, token_rows["steps"])) if token_rows else layers
