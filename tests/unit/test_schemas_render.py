"""What is committed is what is rendered; released versions are frozen; docstring examples run."""

from __future__ import annotations

import doctest
import importlib
import json
import pkgutil
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import routekeel.schemas
from routekeel.schemas import render
from routekeel.schemas.fields import Field, Record
from routekeel.schemas.kinds import INT, STRING
from routekeel.schemas.records import RECORDS, WEIGHTS
from routekeel.schemas.released import RELEASED, digest
from routekeel.schemas.tables import TABLES
from routekeel.streams.cli.main import app

MODULES = sorted(
    m.name for m in pkgutil.walk_packages(routekeel.schemas.__path__, "routekeel.schemas.")
)
FILE = "schemas/published/weights.v1.avsc"


def test_the_committed_files_are_what_the_records_say() -> None:
    assert render.check() == []


@pytest.mark.parametrize("module", MODULES)
def test_docstring_examples_run(module: str) -> None:
    assert doctest.testmod(importlib.import_module(module)).failed == 0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    render.write(tmp_path)
    return tmp_path


def records_with(monkeypatch: pytest.MonkeyPatch, changed: Record) -> None:
    records = tuple(changed if record.name == changed.name else record for record in RECORDS)
    monkeypatch.setattr(render, "RECORDS", records)


def test_writing_is_idempotent_and_passes_the_check(root: Path) -> None:
    assert render.check(root) == []
    assert render.write(root) == []


def test_a_changed_and_a_missing_file_are_told(root: Path) -> None:
    (root / FILE).write_text("{}", encoding="utf-8")
    (root / render.REFERENCE).unlink()
    problems = render.check(root)
    assert any(FILE in problem and "differs" in problem for problem in problems)
    assert any(render.REFERENCE in problem and "missing" in problem for problem in problems)


def test_a_file_of_no_record_and_of_a_later_version_is_told(root: Path) -> None:
    for name in ("stranger.v1.avsc", "weights.v9.avsc", "weights.avsc"):
        shutil.copy(root / FILE, root / render.PUBLISHED / name)
    assert len([p for p in render.check(root) if "belongs to no record" in p]) == 3


MADE_UP = Record("MadeUp", 1, "A record of this test.", (Field("n", INT, "A number."),))
MADE_UP_FILE = f"{render.PUBLISHED}/made_up.v1.avsc"


@pytest.fixture
def released(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A made-up record beside the real ones, its first version published and released."""
    monkeypatch.setattr(render, "RECORDS", (*RECORDS, MADE_UP))
    render.write(root, {})
    pins = {"made_up.v1.avsc": digest((root / MADE_UP_FILE).read_text(encoding="utf-8"))}
    assert render.check(root, pins) == []
    return pins


def changed_to(monkeypatch: pytest.MonkeyPatch, *fields: Field, version: int = 1) -> None:
    record = replace(MADE_UP, version=version, fields=fields)
    monkeypatch.setattr(render, "RECORDS", (*RECORDS, record))


N = MADE_UP.fields[0]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ((N, Field("m", INT, "No default.")), "could not read what is stored: m"),
        ((replace(N, kind=STRING),), "could not read what is stored: n"),
        ((N, Field("m", INT, "Compatible.", default=0)), "add a new version"),
        ((replace(N, doc="Another word."),), "add a new version"),
    ],
    ids=["incompatible field", "incompatible type", "compatible field", "only a word"],
)
def test_a_released_record_does_not_change_in_place(
    root: Path,
    released: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    fields: tuple[Field, ...],
    words: str,
) -> None:
    before = (root / MADE_UP_FILE).read_text(encoding="utf-8")
    changed_to(monkeypatch, *fields)
    (problem,) = [p for p in render.check(root, released) if MADE_UP_FILE in p]
    assert words in problem and "add a new version" in problem
    with pytest.raises(render.ReleasedSchemaChanged, match="add a new version"):
        render.write(root, released)
    assert (root / MADE_UP_FILE).read_text(encoding="utf-8") == before
    # Without the release the same change is written: the refusal is the release's.
    assert MADE_UP_FILE in render.write(root, {})
    # And to have written it by force does not pass the check.
    assert any("was edited" in problem for problem in render.check(root, released))


def test_a_released_file_cannot_be_deleted_and_written_anew(
    root: Path, released: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / MADE_UP_FILE).unlink()
    assert any("is released and missing" in problem for problem in render.check(root, released))
    changed_to(monkeypatch, replace(N, kind=STRING))
    with pytest.raises(render.ReleasedSchemaChanged):
        render.write(root, released)
    changed_to(monkeypatch, N)
    assert render.write(root, released) == [MADE_UP_FILE]  # as it was is welcome
    assert render.check(root, released) == []


def test_a_compatible_second_version_leaves_the_first_alone(
    root: Path, released: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (root / MADE_UP_FILE).read_text(encoding="utf-8")
    changed_to(monkeypatch, N, Field("m", INT, "Compatible.", default=0), version=2)
    assert f"{render.PUBLISHED}/made_up.v2.avsc" in render.write(root, released)
    assert render.check(root, released) == []
    assert (root / MADE_UP_FILE).read_text(encoding="utf-8") == before


def test_what_is_released_is_what_is_committed() -> None:
    published = render.repository_root() / render.PUBLISHED
    for name, pinned in RELEASED.items():
        assert digest((published / name).read_text(encoding="utf-8")) == pinned, name
    others = {path.name for path in published.glob("*.avsc")} - set(RELEASED)
    assert others <= {"weights.v1.avsc"}


def test_the_command_refuses_to_write_a_released_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    first = next(record for record in RECORDS if record.file_name in RELEASED)
    records_with(monkeypatch, replace(first, fields=(*first, Field("n", INT, "", default=0))))
    for flag in ("--check", "--write"):
        result = CliRunner().invoke(app, ["schemas", flag, "--json"])
        assert result.exit_code == 1
        found = json.loads(result.stdout.strip().splitlines()[-1])
        assert found["written"] == []
        assert [p for p in found["problems"] if first.file_name in p and "add a new version" in p]


@pytest.fixture
def second_version(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    def use(field: Field) -> None:
        records_with(monkeypatch, replace(WEIGHTS, version=2, fields=(*WEIGHTS, field)))

    return use  # type: ignore[return-value]


def test_an_incompatible_second_version_is_told(root: Path, second_version: Any) -> None:
    second_version(Field("n", INT, "no default"))
    render.write(root)
    assert any("cannot read v1" in problem and "n" in problem for problem in render.check(root))


def test_the_reference_names_every_field_and_column() -> None:
    page = render.render()[render.REFERENCE]
    for record in RECORDS:
        assert all(f"`{field.name}`" in page for field in record)
    for table in TABLES:
        assert all(f"`{column.name}`" in page for column in table.columns)


def test_published_files_are_readable_json() -> None:
    for path, text in render.render().items():
        if path.endswith(".avsc"):
            assert json.loads(text)["namespace"] == "routekeel"
