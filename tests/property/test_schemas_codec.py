"""Codec: fastavro's bytes, whole round trips, and nothing but SchemaError for any bytes."""

from __future__ import annotations

import io
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routekeel.schemas.avro import reader_schema, schema
from routekeel.schemas.codec import Decoder, Encoder, header
from routekeel.schemas.errors import SchemaError
from routekeel.schemas.fields import Record
from routekeel.schemas.records import RECORDS, TELEMETRY
from routekeel.schemas.registry import FixedSchemaIds
from routekeel.schemas.varint import encode_long
from tests.property.schema_values import LONGS, values

EXAMPLES = settings(max_examples=15, deadline=None, derandomize=True)
MANY = settings(max_examples=60, deadline=None, derandomize=True)


def codec(record: Record) -> tuple[Encoder, Decoder]:
    ids = FixedSchemaIds()
    return Encoder(record, ids.register(record, "t-value")), Decoder(record, ids)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name)
@EXAMPLES
@given(data=st.data())
def test_same_bytes_as_fastavro_and_back(record: Record, data: st.DataObject) -> None:
    value: dict[str, Any] = data.draw(values(record))
    encoder, decoder = codec(record)
    oracle = io.BytesIO()
    fastavro.schemaless_writer(oracle, reader_schema(record), value)
    encoded = encoder.encode(value)
    assert encoded == header(1) + oracle.getvalue()
    decoded = decoder.decode(encoded)
    assert list(decoded) == [field.name for field in record]
    assert encoder.encode(decoded) == encoded


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name)
@EXAMPLES
@given(body=st.binary(max_size=200), framed=st.booleans())
def test_random_bytes_raise_nothing_but_schema_errors(
    record: Record, body: bytes, framed: bool
) -> None:
    _, decoder = codec(record)
    try:
        decoder.decode(header(1) + body if framed else body)
    except SchemaError:
        return


@pytest.mark.parametrize("resolving", [False, True], ids=["same", "older"])
@MANY
@given(data=st.data())
def test_changed_bytes_raise_nothing_but_schema_errors(
    resolving: bool, data: st.DataObject
) -> None:
    ids = FixedSchemaIds()
    writer = schema(TELEMETRY)
    if resolving:
        writer["fields"] = [f for f in writer["fields"] if f["name"] != "task_type"]
    schema_id = ids.add(writer)
    body = io.BytesIO()
    value = data.draw(values(TELEMETRY))
    fastavro.schemaless_writer(body, fastavro.parse_schema(writer), value)
    raw = bytearray(header(schema_id) + body.getvalue())
    for at in data.draw(st.lists(st.integers(0, len(raw) - 1), min_size=1, max_size=4)):
        raw[at] = data.draw(st.integers(0, 255))
    del raw[data.draw(st.integers(0, len(raw))) :]
    try:
        Decoder(TELEMETRY, ids).decode(bytes(raw))
    except SchemaError:
        return


@MANY
@given(LONGS)
def test_longs_are_fastavros(n: int) -> None:
    oracle = io.BytesIO()
    fastavro.schemaless_writer(oracle, fastavro.parse_schema("long"), n)
    assert encode_long(n) == oracle.getvalue()
