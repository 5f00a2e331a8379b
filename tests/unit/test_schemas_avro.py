"""Avro schemas rendered from the records."""

from __future__ import annotations

from typing import Any

import fastavro
import pytest

from routekeel.schemas.avro import bare, parse, reader_schema, schema
from routekeel.schemas.fields import Field, Record
from routekeel.schemas.kinds import INT, STRING, Enum, Matrix, Nested, Sequence
from routekeel.schemas.records import RECORDS, ROUTER_LOGITS, TELEMETRY


def fields(record: Record) -> dict[str, dict[str, Any]]:
    return {field["name"]: field for field in schema(record)["fields"]}


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name)
def test_every_schema_is_valid_avro_and_names_each_type_once(record: Record) -> None:
    fastavro.parse_schema(schema(record))
    defined = [t["name"] for t in _types(schema(record)) if t["type"] in ("enum", "record")]
    assert len(defined) == len(set(defined))


def _types(node: Any) -> list[dict[str, Any]]:
    if isinstance(node, list):
        return [found for item in node for found in _types(item)]
    if not isinstance(node, dict):
        return []
    own = [node] if "type" in node and "doc" not in node else []
    return own + [found for value in node.values() for found in _types(value)]


def test_fields_carry_their_meaning() -> None:
    logits = fields(ROUTER_LOGITS)
    assert logits["event_time_us"]["type"] == {"type": "long", "logicalType": "timestamp-micros"}
    assert logits["token_entropy"]["unit"] == "nats"
    assert logits["ambiguity_predictive"]["range"] == "0…1"
    assert logits["flip_distance"]["dtype"] == "<f4"
    assert logits["flip_distance"]["shape"] == ["steps", "layers"]
    assert all(field["doc"] for record in RECORDS for field in fields(record).values())


def test_nullable_fields_default_to_null_and_others_to_what_is_declared() -> None:
    logits = fields(ROUTER_LOGITS)
    assert logits["success"]["type"] == ["null", "boolean"]
    assert logits["success"]["default"] is None
    assert logits["rank_data"]["default"] == 0
    assert "default" not in logits["session_id"]


def test_an_enum_is_defined_once_with_its_first_symbol_as_default() -> None:
    provenance = [f["type"] for n, f in fields(TELEMETRY).items() if n.startswith("provenance_")]
    assert provenance[0]["default"] == "unavailable"
    assert set(provenance[1:]) == {"Provenance"}


def test_the_codecs_schema_has_no_logical_types_and_is_cached() -> None:
    parsed = reader_schema(TELEMETRY)
    assert parsed is reader_schema(TELEMETRY)
    assert "logicalType" not in repr(parsed)
    assert "doc" not in repr(bare(schema(TELEMETRY)))


def test_what_the_registry_returns_must_be_a_record_schema() -> None:
    for wrong in (
        {"type": "int"},
        {"type": "record", "name": "X", "fields": [{}]},
        {"type": "nonsense"},
        {},
    ):
        with pytest.raises(ValueError, match="not an Avro"):
            parse(wrong)


def test_a_nullable_field_cannot_have_another_default() -> None:
    record = Record("R", 1, "", (Field("a", INT, "", nullable=True, default=3),))
    with pytest.raises(ValueError, match="defaults to null"):
        schema(record)


def test_a_type_used_twice_is_named_the_second_time() -> None:
    colour = Enum("Colour", ("red", "blue"))
    group = Nested("Group", (Field("m", Matrix("<f4", ("n",)), ""), Field("c", colour, "")))
    record = Record(
        "R",
        1,
        "",
        (
            Field("n", INT, ""),
            Field("c", colour, ""),
            Field("g", group, "", nullable=True),
            Field("h", group, "", nullable=True),
            Field("s", Sequence(STRING), ""),
        ),
    )
    rendered = fields(record)
    assert rendered["g"]["type"][1]["fields"][1]["type"] == "Colour"
    assert rendered["h"]["type"] == ["null", "Group"]
    fastavro.parse_schema(schema(record))
