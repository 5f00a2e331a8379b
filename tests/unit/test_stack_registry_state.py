"""The registry's state: applied records in, answers and refusals with Confluent's codes out."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from routekeel.infra.local.registry.faults import RegistryError
from routekeel.infra.local.registry.schema import canonical, parsed
from routekeel.infra.local.registry.state import LEVELS, State, Version, differences


def record(*fields: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "record", "name": "R", "fields": list(fields), **more}


FIRST = record({"name": "a", "type": "int"})
WITH_DEFAULT = record({"name": "a", "type": "int"}, {"name": "b", "type": "int", "default": 0})
WITHOUT_DEFAULT = record({"name": "a", "type": "int"}, {"name": "b", "type": "int"})


def put(state: State, version: Version) -> Version:
    key = {"keytype": "SCHEMA", "subject": version.subject, "version": version.number, "magic": 1}
    value = {
        "subject": version.subject,
        "version": version.number,
        "id": version.schema_id,
        "schema": version.text,
        "deleted": version.deleted,
    }
    state.apply(json.dumps(key).encode(), json.dumps(value).encode())
    return version


def register(state: State, subject: str, schema: Any) -> Version:
    return put(state, state.next_version(subject, schema, json.dumps(schema)))


def set_level(state: State, subject: str | None, level: str | None) -> None:
    key = json.dumps({"keytype": "CONFIG", "subject": subject, "magic": 0}).encode()
    state.apply(key, level and json.dumps({"compatibilityLevel": level}).encode())


def code_of(call: Any, *arguments: Any) -> int:
    with pytest.raises(RegistryError) as caught:
        call(*arguments)
    return caught.value.code


def test_one_schema_has_one_id_in_every_subject() -> None:
    state = State()
    first, second = register(state, "s", FIRST), register(state, "t", FIRST)
    other = register(state, "s", WITH_DEFAULT)
    assert (first.schema_id, first.number) == (1, 1)
    assert (second.schema_id, second.number) == (1, 1)
    assert (other.schema_id, other.number) == (2, 2)
    assert [v.subject for v in state.holders(1)] == ["s", "t"]
    assert state.lookup("t", FIRST) == second
    assert state.version("s", "latest") == other == state.version("s", "2")


def test_refusals_carry_the_codes_that_clients_know() -> None:
    state = State()
    register(state, "s", FIRST)
    assert code_of(state.versions, "none") == 40401
    assert code_of(state.lookup, "none", FIRST) == 40401
    assert code_of(state.version, "s", "7") == 40402
    assert code_of(state.lookup, "s", WITH_DEFAULT) == 40403
    assert code_of(state.text, 9) == 40403
    assert code_of(state.version, "s", "zero") == 42202
    assert code_of(state.version, "s", "0") == 42202
    assert code_of(state.level, "s", False) == 40408


def test_deleted_versions_keep_their_number_and_id() -> None:
    state = State()
    first = register(state, "s", FIRST)
    put(state, replace(first, deleted=True))
    assert state.subjects() == []
    assert state.subjects(deleted=True) == ["s"]
    assert code_of(state.versions, "s") == 40401
    assert state.text(first.schema_id) == json.dumps(FIRST)
    again = register(state, "s", FIRST)
    assert (again.number, again.schema_id) == (2, first.schema_id)


def test_levels_by_subject_then_for_all_then_backward() -> None:
    state = State()
    assert state.level("s") == "BACKWARD"
    set_level(state, None, "FULL")
    set_level(state, "s", "NONE")
    assert (state.level("s"), state.level("t")) == ("NONE", "FULL")
    set_level(state, "s", None)
    assert state.level("s") == "FULL"


@pytest.mark.parametrize(
    ("level", "schema", "allowed"),
    [
        ("BACKWARD", WITH_DEFAULT, True),
        ("BACKWARD", WITHOUT_DEFAULT, False),
        ("FORWARD", WITHOUT_DEFAULT, True),
        ("FORWARD", record(), False),
        ("FULL", WITH_DEFAULT, True),
        ("FULL", WITHOUT_DEFAULT, False),
        ("NONE", "string", True),
    ],
)
def test_each_level_allows_its_direction(level: str, schema: Any, allowed: bool) -> None:
    state = State()
    register(state, "s", FIRST)
    set_level(state, "s", level)
    assert (state.reasons_against("s", schema) == []) is allowed


def test_transitive_levels_look_at_all_versions() -> None:
    state = State()
    for kind in ("long", "double"):  # double reads long; float reads long, but not double
        set_level(state, "s", "NONE")
        register(state, "s", kind)
    set_level(state, "s", "FORWARD")
    assert state.reasons_against("s", "float") == []
    set_level(state, "s", "FORWARD_TRANSITIVE")
    reasons = state.reasons_against("s", "float")
    assert len(reasons) == 1
    assert reasons[0].startswith("version 1 cannot read the new schema: ")
    assert {"FULL_TRANSITIVE", "BACKWARD_TRANSITIVE"} <= LEVELS


def test_differences_name_the_direction() -> None:
    earlier = Version("s", 3, 1, '"int"')
    both = differences("FULL", "string", earlier)
    assert [reason.split(":")[0] for reason in both] == [
        "new schema cannot read version 3",
        "version 3 cannot read the new schema",
    ]


def test_spelling_does_not_make_another_schema() -> None:
    loose = {
        "name": "R",
        "namespace": "n",
        "type": "record",
        "fields": [{"type": {"type": "int"}, "name": "a"}, {"name": "r", "type": ["null", "R"]}],
    }
    tight = {
        "type": "record",
        "fields": [{"name": "a", "type": "int"}, {"name": "r", "type": ["null", "n.R"]}],
        "name": "n.R",
    }
    assert canonical(loose) == canonical(tight)
    assert canonical(loose) != canonical({**loose, "doc": "read this"})
    assert canonical(FIRST) != canonical(WITH_DEFAULT)


@pytest.mark.parametrize(
    "arguments",
    [
        ("",),
        ("{",),
        ('"nonsense"',),
        ('{"type": "record", "name": "R"}',),
        ('"int"', "JSON"),
        ('"int"', "AVRO", [{"name": "x"}]),
        (None,),
    ],
)
def test_what_is_no_schema_is_refused(arguments: tuple[Any, ...]) -> None:
    assert code_of(parsed, *arguments) == 42201


def test_records_of_other_kinds_are_left_aside() -> None:
    state = State()
    state.apply(None, None)
    state.apply(b'{"keytype":"NOOP","magic":0}', None)
    state.apply(b'{"keytype":"SCHEMA","subject":"s","version":1,"magic":1}', None)
    assert state.subjects(deleted=True) == []
