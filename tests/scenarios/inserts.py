"""Inserts as the sink makes them, of records that a log holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from routekeel.schemas.codec import Encoder
from routekeel.schemas.registry import FixedSchemaIds
from routekeel.schemas.tables import Table
from routekeel.streams.settings import Settings
from routekeel.streams.sinks.actions import Insert
from routekeel.streams.sinks.items import ItemDecoder, Route, routes_of
from routekeel.streams.sinks.payload import build_payload
from routekeel.streams.topology.records import LogBatch, Source, SourceRecord
from tests.unit.sink_records import START_MS

ROUTES = routes_of(Settings())
TELEMETRY_ROUTE = ROUTES[Settings().topics.telemetry]
LETTERS_ROUTE = ROUTES[Settings().topics.dlq]
LOG_ID = "telemetry-1"


def insert(
    route: Route,
    table: Table,
    first: int,
    records: Sequence[dict[str, Any]],
    partition: int = 0,
    log_id: str = LOG_ID,
) -> Insert:
    """The insert of these records, the first at this offset of the log."""
    ids = FixedSchemaIds()
    encoder = Encoder(route.record, ids.register(route.record, ""))
    log = [
        SourceRecord(first + place, START_MS, b"key", encoder.encode(fields), ())
        for place, fields in enumerate(records)
    ]
    block, _ = ItemDecoder(route, ids).decode(LogBatch.of(log))
    source, last = Source(route.topic, log_id, partition), first + len(records) - 1
    token = f"{table.name}/{log_id}/{partition}/{first}-{last}"
    return Insert(table, token, build_payload(table, block, source), source, last)
