"""The records of a log, decoded or refused, and which tables they fill.

Decoding asks the registry only for schema ids it has not seen. A registry that does not answer
condemns nothing: the record waits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from routekeel.schemas.codec import Decoder, schema_id_of
from routekeel.schemas.errors import (
    BadFraming,
    RegistryUnavailable,
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
from routekeel.streams.sinks.block import Block, Item, Refused
from routekeel.streams.sinks.bulk import Bulk, BulkDecoder
from routekeel.streams.topology.records import LogBatch, SourceRecord

# What a decoded record costs beside its bytes: a dict, its keys' values, some forty objects.
DECODED_OVERHEAD_BYTES: Final = 6 * 1024

_CLASSES: Final[tuple[tuple[type[SchemaError], str], ...]] = (
    (BadFraming, "bad_framing"),
    (UnknownSchemaId, "unknown_schema_id"),
    (WrongRecord, "wrong_record"),
)


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
    """Decodes the records of one topic, in bulk where that can be."""

    def __init__(self, route: Route, registry: SchemaRegistry) -> None:
        self._record = route.record
        self._decoder = Decoder(route.record, registry)
        self._bulk = BulkDecoder.of(route.record)
        self._our_id: int | None = None

    def decode(self, records: LogBatch) -> tuple[Block, str]:
        """The records as a block, the bad ones refused, and what is wrong with the registry.

        A registry that does not answer ends the block before the record that needed it.
        """
        bulk = self._in_bulk(records)
        good = np.zeros(len(records), np.bool_) if bulk is None else bulk.good
        items: list[Item] = []
        trouble = ""
        for index in np.flatnonzero(~good).tolist():
            try:
                items.append(self.decode_one(records[index]))
            except RegistryUnavailable as error:
                trouble = error.reason
                records, good = records[:index], good[:index]
                bulk = None if bulk is None else bulk.part(slice(index))
                break
        plain = Block.of(items)
        if bulk is None:
            return plain, trouble
        return self._together(records, bulk, plain), trouble

    def decode_one(self, record: SourceRecord) -> Item:
        """One record, by fastavro; refused where its bytes are wrong. Raises RegistryUnavailable."""
        value = record.value
        if value is None:
            return refused_item(record, "empty_value", "the record has no value")
        try:
            fields = self._fields(value)
        except SchemaError as error:
            name = next((name for kind, name in _CLASSES if isinstance(error, kind)), "bad_body")
            return refused_item(record, name, str(error))
        rows = _rows(fields)
        if rows > _rows_max(len(value)):
            return refused_item(record, "bad_shape", _claims(rows, len(value)))
        return Item(record, fields, None, rows, len(value) + DECODED_OVERHEAD_BYTES)

    def _fields(self, value: bytes) -> Mapping[str, Any]:
        fields: Mapping[str, Any] = self._decoder.decode(value)
        return with_full_route(fields) if self._record is WEIGHTS else fields

    def _in_bulk(self, records: LogBatch) -> Bulk | None:
        if self._bulk is None:
            return None
        if self._our_id is None:
            self._our_id = self._find_our_id(records.values)
        if self._our_id is None:
            return None
        bulk = self._bulk.decode(records.values, self._our_id)
        if not bulk.good.any():
            self._our_id = None  # perhaps the registry is another one now
        return bulk

    def _find_our_id(self, values: Sequence[bytes | None]) -> int | None:
        """The id of our own schema, from the first record that was written with it."""
        for value in values:
            try:
                schema_id = schema_id_of(value or b"")
                if self._decoder.is_ours(schema_id):
                    return schema_id
            except SchemaError:
                continue
            except RegistryUnavailable:  # asked record by record, it would hold up the reading
                return None
        return None

    def _together(self, records: LogBatch, bulk: Bulk, plain: Block) -> Block:
        """The block of all records: those of `bulk` and, between them, those of `plain`."""
        assert self._bulk is not None
        found = self._bulk.sources(bulk)
        if found is None:
            return Block.of([self.decode_one(records[index]) for index in range(len(records))])
        keys, key_of, source_offsets = found
        lengths = bulk.lengths
        rows = self._bulk.rows(bulk)
        usable = rows <= _rows_max(lengths)
        refused = {
            records.offsets[index]: Refused(
                "bad_shape", _claims(int(rows[index]), int(lengths[index]))
            )
            for index in np.flatnonzero(~usable).tolist()
        }
        rows[~usable] = 0
        sizes = 2 * lengths + self._bulk.bytes_each  # as it came, and in the columns' buffer
        others = np.flatnonzero(~bulk.good)
        rows[others], sizes[others], usable[others] = plain.rows, plain.sizes, plain.usable
        names = tuple(dict.fromkeys((*keys, *plain.keys)))
        places = np.array([names.index(key) for key in plain.keys] or [0], np.int32)
        key_of[others], source_offsets[others] = places[plain.key_of], plain.source_offsets
        return Block(
            records,
            np.array(records.offsets, np.int64),
            np.array(records.timestamps_ms, np.int64),
            rows,
            sizes,
            usable,
            names,
            key_of,
            source_offsets,
            {**refused, **plain.refused},
            plain.fields,
            self._record,
            bulk,
            self._fields,
        )


def _rows(fields: Mapping[str, Any]) -> int:
    if "layers" not in fields:
        return 1
    layers = len(fields["layers"])
    token_rows = fields.get("token_rows")
    return layers * (1 + max(0, token_rows["steps"])) if token_rows else layers


def _rows_max(size: Any) -> Any:
    """Every (token, layer) row takes a byte at least, so a larger claim is no valid shape. Found here
    because building its columns would first ask for the memory.
    """
    return 2 * size + 1


def _claims(rows: int, size: int) -> str:
    return f"it claims {rows} rows in {size} bytes"
