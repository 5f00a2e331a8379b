"""Codec: framing, the tree of errors, and readers and writers of different versions."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from routekeel.schemas.avro import schema
from routekeel.schemas.codec import Decoder, Encoder, header, schema_id_of
from routekeel.schemas.errors import (
    BadBody,
    BadFraming,
    BadValue,
    SchemaError,
    UnknownSchemaId,
    WrongRecord,
)
from routekeel.schemas.fields import Field, Record
from routekeel.schemas.kinds import INT, LONG, STRING, Enum
from routekeel.schemas.records import POLICY, ROUTER_LOGITS, TELEMETRY, WEIGHTS
from routekeel.schemas.registry import FixedSchemaIds
from tests.golden.examples import example


def pair(record: Record) -> tuple[Encoder, Decoder]:
    ids = FixedSchemaIds()
    return Encoder(record, ids.register(record, "t-value")), Decoder(record, ids)


@pytest.mark.parametrize("data", [b"", b"\0\0\0\0", b"\1\0\0\0\1rest", b"plain text"])
def test_bad_framing(data: bytes) -> None:
    with pytest.raises(BadFraming):
        pair(WEIGHTS)[1].decode(data)


def test_framing_keeps_the_id() -> None:
    for schema_id in (0, 1, 2**31 - 1, -1):
        assert schema_id_of(header(schema_id)) == schema_id


def test_an_unknown_id_is_final_and_says_which() -> None:
    with pytest.raises(UnknownSchemaId) as raised:
        pair(WEIGHTS)[1].decode(header(99) + b"x")
    assert raised.value.schema_id == 99
    assert isinstance(raised.value, SchemaError)


def test_the_schema_of_another_record_is_refused() -> None:
    ids = FixedSchemaIds()
    data = Encoder(WEIGHTS, ids.register(WEIGHTS, "w")).encode(example(WEIGHTS))
    with pytest.raises(WrongRecord, match=r"routekeel\.Weights, not routekeel\.Telemetry"):
        Decoder(TELEMETRY, ids).decode(data)


def test_a_schema_that_cannot_be_read_is_refused_before_the_body() -> None:
    ids = FixedSchemaIds()
    other = schema(WEIGHTS)
    other["fields"] = [field for field in other["fields"] if field["name"] != "session_id"]
    with pytest.raises(WrongRecord, match="cannot be read"):
        Decoder(WEIGHTS, ids).decode(header(ids.add(other)))


def test_a_schema_without_a_sound_definition_is_refused() -> None:
    ids = FixedSchemaIds()
    broken = {"type": "record", "name": "Weights", "namespace": "routekeel", "fields": [{}]}
    with pytest.raises(SchemaError):
        Decoder(WEIGHTS, ids).decode(header(ids.add(broken)))


def change(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda record: record.__setitem__(name, value)


@pytest.mark.parametrize(
    ("break_it", "field"),
    [
        (lambda record: record.pop("session_id"), "session_id"),
        (change("session_id", None), "session_id"),
        (change("session_id", b"bytes"), "session_id"),
        (change("w_hat", "text"), "w_hat"),
        (change("w_hat", np.zeros((2, 4), "<f4")), "w_hat"),
        (change("w_hat", bytearray(8)), "w_hat"),
        (change("position", 2**63), "position"),
        (change("position", 1.5), "position"),
        (change("experts", 2**31), "experts"),
        (change("layers", 3), "layers"),
        (change("layers", [0, None]), "layers"),
        (change("layers", [2**40]), "layers"),
    ],
)
def test_a_wrong_value_is_refused(break_it: Callable[[dict[str, Any]], object], field: str) -> None:
    value = example(WEIGHTS)
    break_it(value)
    with pytest.raises(BadValue, match="Weights"):
        pair(WEIGHTS)[0].encode(value)


def test_an_unknown_symbol_and_no_mapping_at_all_are_refused() -> None:
    value = example(ROUTER_LOGITS) | {"phase": "neither"}
    with pytest.raises(BadValue):
        pair(ROUTER_LOGITS)[0].encode(value)
    with pytest.raises(BadValue):
        pair(ROUTER_LOGITS)[0].encode(None)  # type: ignore[arg-type]


def test_defaults_fill_in_and_numpy_scalars_are_numbers() -> None:
    encoder, decoder = pair(ROUTER_LOGITS)
    value = example(ROUTER_LOGITS, sparse=True)
    short = {key: item for key, item in value.items() if key != "rank_data" and item is not None}
    short["steps"], short["success"] = np.int64(3), np.bool_(True)
    decoded = decoder.decode(encoder.encode(short))
    assert decoded == value | {"rank_data": 0, "success": True}


def test_times_are_integers_and_matrices_bytes() -> None:
    encoder, decoder = pair(WEIGHTS)
    decoded = decoder.decode(encoder.encode(example(WEIGHTS)))
    assert type(decoded["event_time_us"]) is int
    assert type(decoded["w_hat"]) is bytes


def test_an_int_of_more_than_32_bits_is_refused() -> None:
    ids = FixedSchemaIds()
    small = Record("R", 1, "", (Field("a", INT, ""),))
    wide = Record("R", 1, "", (Field("a", LONG, ""),))
    data = Encoder(wide, ids.register(small, "t")).encode({"a": 2**40})
    with pytest.raises(BadBody, match="32 bits"):
        Decoder(small, ids).decode(data)


def test_a_newer_reader_fills_in_and_an_older_reader_skips() -> None:
    newer = replace(
        POLICY,
        version=2,
        fields=(
            *POLICY.fields,
            Field("owner", STRING, "", default="nobody"),
            Field("cost", LONG, "", nullable=True),
        ),
    )
    ids = FixedSchemaIds()
    old, new = ids.register(POLICY, "t"), ids.register(newer, "t")
    value = example(POLICY)
    assert Decoder(newer, ids).decode(Encoder(POLICY, old).encode(value)) == value | {
        "owner": "nobody",
        "cost": None,
    }
    written = Encoder(newer, new).encode(value | {"owner": "me", "cost": 3})
    assert Decoder(POLICY, ids).decode(written) == value


def test_a_removed_field_is_skipped_where_it_had_a_default() -> None:
    ids = FixedSchemaIds()
    fewer = replace(POLICY, fields=tuple(f for f in POLICY.fields if f.name != "reason"))
    value = example(POLICY)
    decoded = Decoder(fewer, ids).decode(Encoder(POLICY, ids.register(POLICY, "t")).encode(value))
    assert decoded == {key: item for key, item in value.items() if key != "reason"}


def test_a_symbol_from_the_future_becomes_the_enums_default() -> None:
    ids = FixedSchemaIds()
    phases = Enum("Phase", ("decode", "prefill", "draft"))
    fields = tuple(replace(f, kind=phases) if f.name == "phase" else f for f in ROUTER_LOGITS)
    future = replace(ROUTER_LOGITS, version=2, fields=fields)
    value = example(ROUTER_LOGITS) | {"phase": "draft"}
    data = Encoder(future, ids.register(future, "t")).encode(value)
    assert Decoder(ROUTER_LOGITS, ids).decode(data)["phase"] == "decode"


def test_equal_schemas_need_no_resolution_whatever_their_docs_say() -> None:
    ids = FixedSchemaIds()
    published = copy.deepcopy(schema(WEIGHTS))
    published["doc"] = "other words"
    published["fields"][0].pop("doc")
    decoder = Decoder(WEIGHTS, ids)
    data = Encoder(WEIGHTS, ids.add(published)).encode(example(WEIGHTS))
    assert decoder.decode(data) == example(WEIGHTS)
    assert decoder._plans[1][1] is None


def test_a_message_about_bad_bytes_holds_no_address() -> None:
    ids = FixedSchemaIds()
    value = Encoder(ROUTER_LOGITS, ids.register(ROUTER_LOGITS, "s")).encode(example(ROUTER_LOGITS))
    decoder = Decoder(ROUTER_LOGITS, ids)
    for end in range(5, len(value)):
        with pytest.raises(SchemaError) as caught:
            decoder.decode(value[:end])
        assert " at 0x" not in str(caught.value)
