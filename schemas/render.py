"""Everything that is rendered from the records, and the check that what is committed agrees.

A released schema is never written again: a change to its record is a new version, and every version
must be readable by the newest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from routekeel.schemas.avro import schema
from routekeel.schemas.clickhouse import create_statements
from routekeel.schemas.evolution import incompatibilities
from routekeel.schemas.fields import Record
from routekeel.schemas.markdown import reference
from routekeel.schemas.records import RECORDS
from routekeel.schemas.released import RELEASED, digest

PUBLISHED: Final = "schemas/published"
DDL: Final = "infra/ddl"
REFERENCE: Final = "docs/reference/schemas.md"

_DDL_HEAD = """\
-- Rendered from schemas/records by `routekeel schemas --write`; a test fails where this differs.
-- Every statement may be run again. TTL days are the defaults; see schemas/clickhouse.py.

"""


class ReleasedSchemaChanged(Exception):
    """A released schema would be overwritten with another content."""


def repository_root() -> Path:
    """The checkout that this file lies in (an installed package has no files to render)."""
    return Path(__file__).resolve().parent.parent


def render() -> dict[str, str]:
    """Every rendered file: its path from the repository's root, and its text.

    >>> sorted(render())[0]
    'docs/reference/schemas.md'
    """
    out = {f"{PUBLISHED}/{record.file_name}": published_text(record) for record in RECORDS}
    out[f"{DDL}/001_tables.sql"] = ddl_text(create_statements())
    out[f"{DDL}/001_tables.cluster.sql"] = ddl_text(create_statements(cluster="{cluster}"))
    out[REFERENCE] = reference()
    return out


def published_text(record: Record) -> str:
    """The published schema file of a record's newest version."""
    return json.dumps(schema(record), indent=2, ensure_ascii=False) + "\n"


def ddl_text(statements: list[str]) -> str:
    """Statements as an SQL file."""
    return _DDL_HEAD + "\n\n".join(statement + ";" for statement in statements) + "\n"


def check(root: Path | None = None, released: Mapping[str, str] = RELEASED) -> list[str]:
    """What differs between the committed files and the records, one sentence each; empty is good.

    Also every released file or record that changed in place, every published version that the newest
    cannot read, and published files that belong to no record or to a version not declared yet.
    `released` says the digest of each released file.
    """
    root = root or repository_root()
    problems = [
        problem
        for path, text in render().items()
        if not _changes_released(path, text, released) and (problem := _differs(root, path, text))
    ]
    problems += _changed_releases(root, released)
    versions = {record.file_name.split(".")[0]: record for record in RECORDS}
    for path in sorted((root / PUBLISHED).glob("*.avsc")):
        record = versions.get(path.name.split(".")[0])
        version = _version(path)
        if record is None or version is None or version > record.version:
            problems.append(f"{PUBLISHED}/{path.name} belongs to no record")
        elif version < record.version:
            old: Any = json.loads(path.read_text(encoding="utf-8"))
            problems += [
                f"{record.name} v{record.version} cannot read v{version}: {reason}"
                for reason in incompatibilities(schema(record), old)
            ]
    for record in RECORDS:
        missing = [v for v in range(1, record.version) if not _published(root, record, v).exists()]
        problems += [f"{record.name} v{v} was published but its file is missing" for v in missing]
    return problems


def write(root: Path | None = None, released: Mapping[str, str] = RELEASED) -> list[str]:
    """Write every rendered file that differs; the paths written.

    Raises ReleasedSchemaChanged, before anything is written, where a released schema would change,
    whether its file is there or not.
    """
    root = root or repository_root()
    changed = {path: text for path, text in render().items() if _differs(root, path, text)}
    for path, text in changed.items():
        if _changes_released(path, text, released):
            raise ReleasedSchemaChanged(_add_a_version(path))
    for path, text in changed.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    return list(changed)


def _changes_released(path: str, text: str, released: Mapping[str, str]) -> bool:
    """Whether a released file would have another content than at its release."""
    pinned = released.get(Path(path).name)
    return pinned is not None and pinned != digest(text)


def _changed_releases(root: Path, released: Mapping[str, str]) -> Iterator[str]:
    """Released files that are gone or edited, and records that changed without a new version."""
    for name, pinned in released.items():
        path = f"{PUBLISHED}/{name}"
        try:
            found = (root / path).read_text(encoding="utf-8")
        except FileNotFoundError:
            yield f"{path} is released and missing; take it from the repository's history"
            continue
        if digest(found) != pinned:
            yield f"{path} is released and was edited; take it from the repository's history"
            continue
        for record in RECORDS:
            if record.file_name == name and published_text(record) != found:
                reasons = incompatibilities(schema(record), json.loads(found))
                harm = (
                    f" (it could not read what is stored: {'; '.join(reasons)})" if reasons else ""
                )
                yield _add_a_version(path) + harm


def _differs(root: Path, path: str, text: str) -> str:
    try:
        found = (root / path).read_text(encoding="utf-8")
    except FileNotFoundError:
        return f"{path} is missing; run `routekeel schemas --write`"
    return "" if found == text else f"{path} differs; run `routekeel schemas --write`"


def _add_a_version(path: str) -> str:
    return f"{path} is released and its record has changed: add a new version"


def _published(root: Path, record: Record, version: int) -> Path:
    return root / PUBLISHED / f"{record.file_name.split('.')[0]}.v{version}.avsc"


def _version(path: Path) -> int | None:
    mark = path.name.split(".")[1:2]
    return int(mark[0][1:]) if mark and mark[0][:1] == "v" and mark[0][1:].isdigit() else None
