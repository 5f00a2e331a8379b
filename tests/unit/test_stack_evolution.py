"""Avro compatibility: each rule of schema resolution, and fastavro's reader as the oracle."""

from __future__ import annotations

import io
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routekeel.schemas.evolution import incompatibilities


def record(*fields: dict[str, Any], name: str = "R", **more: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": list(fields), **more}


def field(name: str, kind: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": kind, **more}


def enum(*symbols: str, **more: Any) -> dict[str, Any]:
    return {"type": "enum", "name": "E", "symbols": list(symbols), **more}


def fixed(size: int, name: str = "F") -> dict[str, Any]:
    return {"type": "fixed", "name": name, "size": size}


LINKED = record(field("v", "int"), field("next", ["null", "R"], default=None))
LINKED_LONG = record(field("v", "long"), field("next", ["null", "R"], default=None))
LINKED_TEXT = record(field("v", "string"), field("next", ["null", "R"], default=None))

READABLE: list[tuple[Any, Any]] = [
    ("long", "int"),
    ("double", "int"),
    ("double", "float"),
    ("float", "long"),
    ("bytes", "string"),
    ("string", "bytes"),
    (["null", "string"], "string"),
    ("string", ["string"]),
    (["null", "long", "string"], ["int", "null"]),
    ({"type": "array", "items": "long"}, {"type": "array", "items": "int"}),
    ({"type": "map", "values": "double"}, {"type": "map", "values": "int"}),
    (enum("A", "B", "C"), enum("A", "B")),
    (enum("A", default="A"), enum("A", "B")),
    (fixed(4), fixed(4)),
    (record(), record(field("gone", "int"))),
    (record(field("new", "int", default=1)), record()),
    (record(field("new", ["null", "int"], default=None)), record()),
    (record(field("b", "int", aliases=["a"])), record(field("a", "int"))),
    (record(name="New", aliases=["R"]), record(name="R")),
    (record(name="x.R"), record(name="y.R")),  # unqualified names decide
    (LINKED, LINKED),
    (LINKED_LONG, LINKED),
    ({"type": "long", "logicalType": "timestamp-micros"}, "long"),
    ({"type": "string"}, "string"),
]
UNREADABLE: list[tuple[Any, Any, str]] = [
    ("int", "long", "(root): reader int cannot read writer long"),
    ("string", "int", "(root): reader string cannot read writer int"),
    ("float", "double", "(root): reader float cannot read writer double"),
    ("boolean", "int", "(root): reader boolean cannot read writer int"),
    ("null", "string", "(root): reader null cannot read writer string"),
    ("string", ["null", "string"], "(root): reader string cannot read writer null"),
    (["null", "int"], "string", "no branch of reader union [null, int] reads writer string"),
    ([], "string", "no branch of reader union [nothing]"),
    ({"type": "array", "items": "int"}, {"type": "array", "items": "long"}, "(root)[]: reader int"),
    ({"type": "map", "values": "int"}, {"type": "map", "values": "string"}, "(root){}: reader int"),
    (
        {"type": "map", "values": "int"},
        {"type": "array", "items": "int"},
        "cannot read writer array",
    ),
    (enum("A"), enum("A", "B"), "reader enum lacks B and has no default symbol"),
    (fixed(4), fixed(8), "fixed size is 4, not the writer's 8"),
    (fixed(4), fixed(4, name="G"), "named otherwise"),
    (record(field("new", "int")), record(), "new: the writer has no such field"),
    (record(field("a", "int")), record(field("a", "string")), "a: reader int"),
    (record(name="New"), record(name="R"), "record New is named otherwise than writer record R"),
    (record(field("b", "int")), record(field("a", "int")), "b: the writer has no such field"),
    (LINKED, LINKED_LONG, "v: reader int cannot read writer long"),
    (LINKED_TEXT, LINKED, "v: reader string cannot read writer int"),
    (
        record(field("in", record(field("x", "int"), name="I"))),
        record(field("in", record(name="I"))),
        "in.x: the writer has no such field",
    ),
    (
        {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
        {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 3},
        "decimal precision and scale",
    ),
]


@pytest.mark.parametrize(("reader", "writer"), READABLE)
def test_readable(reader: Any, writer: Any) -> None:
    assert incompatibilities(reader, writer) == []


@pytest.mark.parametrize(("reader", "writer", "message"), UNREADABLE)
def test_unreadable_says_where_and_why(reader: Any, writer: Any, message: str) -> None:
    found = incompatibilities(reader, writer)
    assert len(found) == 1
    assert message in found[0]


def test_every_place_is_named() -> None:
    reader = record(
        field("a", "int"), field("b", "int"), field("c", {"type": "array", "items": "R"})
    )
    found = incompatibilities(reader, record(field("a", "string")))
    assert [message.split(":")[0] for message in found] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "broken",
    ["nothing", {"type": "record"}, {"no": "type"}, 5, None, {"type": "array"}, ["Unknown"]],
)
def test_what_is_no_schema_is_an_error(broken: Any) -> None:
    with pytest.raises(ValueError):
        incompatibilities(broken, "int")
    with pytest.raises(ValueError):
        incompatibilities("int", broken)


VALUES: dict[str, Any] = {
    "null": st.none(),
    "boolean": st.booleans(),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**53), 2**53),
    "float": st.floats(width=32, allow_nan=False),
    "double": st.floats(allow_nan=False),
    "string": st.text(max_size=5),
    "bytes": st.text(max_size=5).map(str.encode),
}
PRIMITIVE = st.sampled_from(sorted(VALUES))
KINDS = st.one_of(
    PRIMITIVE,
    st.lists(PRIMITIVE, min_size=1, max_size=3, unique=True),
    PRIMITIVE.map(lambda item: {"type": "array", "items": item}),
    PRIMITIVE.map(lambda value: {"type": "map", "values": value}),
)
FIELDS = st.dictionaries(st.sampled_from("abc"), KINDS, max_size=3)


def values_of(kind: Any) -> st.SearchStrategy[Any]:
    if isinstance(kind, list):
        # As (branch, value): fastavro would otherwise choose a branch by the value.
        return st.sampled_from(kind).flatmap(lambda b: VALUES[b].map(lambda v: (b, v)))
    if isinstance(kind, dict):
        if kind["type"] == "array":
            return st.lists(VALUES[kind["items"]], min_size=1, max_size=2)
        return st.dictionaries(st.text(max_size=3), VALUES[kind["values"]], min_size=1, max_size=2)
    return VALUES[kind]  # type: ignore[no-any-return]


@settings(max_examples=300, deadline=None)
@given(FIELDS, FIELDS, st.data())
def test_fastavro_reads_what_is_called_readable(
    ours: dict[str, Any], theirs: dict[str, Any], data: st.DataObject
) -> None:
    reader = record(*(field(name, kind) for name, kind in ours.items()))
    writer = record(*(field(name, kind) for name, kind in theirs.items()))
    row = {name: data.draw(values_of(kind)) for name, kind in theirs.items()}
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(writer), row)
    stream.seek(0)
    if incompatibilities(reader, writer):
        return  # some values may still be readable, by luck
    fastavro.schemaless_reader(stream, fastavro.parse_schema(writer), fastavro.parse_schema(reader))
