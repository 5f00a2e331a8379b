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

import routekeel.schemas
from routekeel.schemas import render
from routekeel.schemas.fields import Field, Record
from routekeel.schemas.kinds import INT
from routekeel.schemas.records import RECORDS, WEIGHTS
from routekeel.schemas.tables import TABLES

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


def test_a_released_schema_is_never_written_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = frozenset({"weights.v1.avsc"})
    before = (root / FILE).read_text(encoding="utf-8")
    records_with(monkeypatch, replace(WEIGHTS, fields=(*WEIGHTS, Field("n", INT, "", default=0))))
    with pytest.raises(render.ReleasedSchemaChanged, match="add a new version"):
        render.write(root, released)
    assert (root / FILE).read_text(encoding="utf-8") == before
    assert any("add a new version" in problem for problem in render.check(root, released))
    assert FILE in render.write(root)


@pytest.fixture
def second_version(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    def use(field: Field) -> None:
        records_with(monkeypatch, replace(WEIGHTS, version=2, fields=(*WEIGHTS, field)))

    return use  # type: ignore[return-value]


def test_a_compatible_second_version_leaves_the_first_alone(
    root: Path, second_version: Any
) -> None:
    second_version(Field("n", INT, "", default=0))
    released = frozenset({"weights.v1.avsc"})
    assert "schemas/published/weights.v2.avsc" in render.write(root, released)
    assert render.check(root, released) == []
    (root / FILE).unlink()
    assert any("file is missing" in problem for problem in render.check(root, released))


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
