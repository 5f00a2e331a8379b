"""Bytes of every published version, made once, must decode for ever to the value beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from routekeel.schemas.avro import schema
from routekeel.schemas.codec import Decoder, Encoder, header
from routekeel.schemas.errors import BadBody, SchemaError
from routekeel.schemas.fields import Record
from routekeel.schemas.records import RECORDS
from routekeel.schemas.registry import FixedSchemaIds
from routekeel.schemas.render import PUBLISHED, repository_root
from tests.golden.examples import example, from_json
from tests.golden.make_golden import CASES, stem

HERE = Path(__file__).parent
BY_STEM = {record.file_name.split(".")[0]: record for record in RECORDS}
GOLDEN = sorted(path.name.removesuffix(".hex") for path in HERE.glob("*.hex"))


def golden(name: str) -> tuple[Record, Decoder, bytes, dict[str, Any]]:
    """The record, a decoder that knows the version's published schema as id 1, bytes and value."""
    record_stem, version, _ = name.split(".")
    published = repository_root() / PUBLISHED / f"{record_stem}.{version}.avsc"
    ids = FixedSchemaIds()
    assert ids.add(json.loads(published.read_text(encoding="utf-8"))) == 1
    body = bytes.fromhex((HERE / f"{name}.hex").read_text(encoding="utf-8"))
    value = from_json(json.loads((HERE / f"{name}.json").read_text(encoding="utf-8")))
    record = BY_STEM[record_stem]
    return record, Decoder(record, ids), header(1) + body, value


def test_every_published_version_has_golden_bytes() -> None:
    published = {path.stem for path in (repository_root() / PUBLISHED).glob("*.avsc")}
    assert {name.rsplit(".", 1)[0] for name in GOLDEN} == published


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_bytes_decode_to_the_golden_value(name: str) -> None:
    record, decoder, data, value = golden(name)
    decoded = decoder.decode(data)
    assert set(decoded) == {field.name for field in record}
    assert {key: item for key, item in decoded.items() if key in value} == value


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name)
@pytest.mark.parametrize("case", CASES)
def test_our_encoder_writes_the_golden_bytes(record: Record, case: str) -> None:
    _, _, data, value = golden(stem(record, case))
    assert Encoder(record, 1).encode(value) == data
    assert example(record, sparse=case == "sparse") == value, "run tests.golden.make_golden"


@pytest.mark.parametrize("name", GOLDEN)
def test_every_truncation_and_every_longer_body_is_refused(name: str) -> None:
    _, decoder, data, _ = golden(name)
    for end in range(5, len(data), 1 if len(data) < 400 else 7):
        with pytest.raises(BadBody):
            decoder.decode(data[:end])
    with pytest.raises(BadBody, match="after the end"):
        decoder.decode(data + b"\0")


@pytest.mark.parametrize("name", GOLDEN)
def test_a_changed_byte_is_refused_or_changes_the_value(name: str) -> None:
    _, decoder, data, value = golden(name)
    refused = 0
    for at in range(len(data)):
        mutated = data[:at] + bytes([data[at] ^ 0x81]) + data[at + 1 :]
        try:
            assert repr(decoder.decode(mutated)) != repr(value)
        except SchemaError:
            refused += 1
    assert refused > 5, "a changed length, header or branch must be refused"


def test_the_schemas_of_two_records_are_not_taken_for_each_other() -> None:
    names = {f"{schema(record)['namespace']}.{schema(record)['name']}" for record in RECORDS}
    assert len(names) == len(RECORDS)
