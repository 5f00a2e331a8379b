"""The registry's state: subjects, versions, ids and levels, rebuilt from the topic's records.

Pure and single-threaded. Nothing changes it but `apply`, so that what is answered is always what
the topic holds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from routekeel.infra.local.registry import faults
from routekeel.infra.local.registry.schema import canonical
from routekeel.schemas.evolution import incompatibilities

LEVELS = frozenset(
    ["NONE"] + [f"{n}{t}" for n in ("BACKWARD", "FORWARD", "FULL") for t in ("", "_TRANSITIVE")]
)
LEVEL_DEFAULT = "BACKWARD"
VERSION_MAX = 2**31 - 1


@dataclass(frozen=True)
class Version:
    """One version of a subject. `text` is the schema as it was first registered."""

    subject: str
    number: int
    schema_id: int
    text: str
    deleted: bool = False

    def answer(self) -> dict[str, Any]:
        """What clients get."""
        return {
            "subject": self.subject,
            "version": self.number,
            "id": self.schema_id,
            "schemaType": "AVRO",
            "schema": self.text,
        }


class State:
    """Everything the topic says, indexed."""

    def __init__(self) -> None:
        self._subjects: dict[str, dict[int, Version]] = {}
        self._levels: dict[str | None, str] = {}
        self._texts: dict[int, str] = {}
        self._ids: dict[str, int] = {}  # by canonical text

    def apply(self, key: bytes | None, value: bytes | None) -> None:
        """Take in one record. Unknown kinds are left aside, as a newer registry may write them."""
        if key is None:
            return
        at = json.loads(key)
        row = json.loads(value) if value else None
        if at.get("keytype") == "SCHEMA":
            self._apply_schema(at, row)
        elif at.get("keytype") == "CONFIG":
            if row is None:
                self._levels.pop(at.get("subject"), None)
            else:
                self._levels[at.get("subject")] = row["compatibilityLevel"]

    def _apply_schema(self, at: dict[str, Any], row: dict[str, Any] | None) -> None:
        subject, number = at["subject"], int(at["version"])
        if row is None:
            self._subjects.get(subject, {}).pop(number, None)
            return
        schema_id, text = int(row["id"]), row["schema"]
        version = Version(subject, number, schema_id, text, bool(row.get("deleted", False)))
        self._subjects.setdefault(subject, {})[number] = version
        self._texts.setdefault(schema_id, text)
        self._ids.setdefault(canonical(json.loads(text)), schema_id)

    def subjects(self, deleted: bool = False) -> list[str]:
        """The names of subjects with at least one version."""
        return sorted(
            name
            for name, versions in self._subjects.items()
            if any(deleted or not v.deleted for v in versions.values())
        )

    def versions(self, subject: str, deleted: bool = False) -> list[Version]:
        """A subject's versions in order. Raises RegistryError (40401)."""
        rows = self._subjects.get(subject, {})
        found = [rows[n] for n in sorted(rows) if deleted or not rows[n].deleted]
        if not found:
            raise faults.no_subject(subject)
        return found

    def version(self, subject: str, wanted: str, deleted: bool = False) -> Version:
        """One version by number or 'latest'. Raises RegistryError (40401, 40402, 42202)."""
        found = self.versions(subject, deleted)
        if wanted in ("latest", "-1"):
            return found[-1]
        if not wanted.isdecimal() or not 0 < int(wanted) <= VERSION_MAX:
            raise faults.invalid_version(wanted)
        for version in found:
            if version.number == int(wanted):
                return version
        raise faults.no_version(wanted)

    def lookup(self, subject: str, schema: Any, deleted: bool = False) -> Version:
        """The version that holds this schema. Raises RegistryError (40401, 40403)."""
        form = canonical(schema)
        for version in reversed(self.versions(subject, deleted)):
            if canonical(json.loads(version.text)) == form:
                return version
        raise faults.no_schema()

    def text(self, schema_id: int) -> str:
        """A schema by id, deleted or not. Raises RegistryError (40403)."""
        if schema_id not in self._texts:
            raise faults.no_schema()
        return self._texts[schema_id]

    def holders(self, schema_id: int, deleted: bool = False) -> list[Version]:
        """Every version that has this id. Raises RegistryError (40403)."""
        self.text(schema_id)
        return [
            version
            for name in sorted(self._subjects)
            for version in self._subjects[name].values()
            if version.schema_id == schema_id and (deleted or not version.deleted)
        ]

    def level(self, subject: str | None = None, fallback: bool = True) -> str:
        """The compatibility level that holds. Raises RegistryError (40408)."""
        if subject is not None and subject in self._levels:
            return self._levels[subject]
        if subject is not None and not fallback:
            raise faults.no_level(subject)
        return self._levels.get(None, LEVEL_DEFAULT)

    def reasons_against(self, subject: str, schema: Any) -> list[str]:
        """Why the level that holds for the subject forbids this schema; empty when it does not."""
        level = self.level(subject)
        earlier = [v for v in self._subjects.get(subject, {}).values() if not v.deleted]
        earlier.sort(key=lambda version: version.number)
        if not level.endswith("_TRANSITIVE"):
            earlier = earlier[-1:]
        return [reason for v in earlier for reason in differences(level, schema, v)]

    def next_version(self, subject: str, schema: Any, text: str) -> Version:
        """The version that registering would make: the schema's known id, or the next free one."""
        schema_id = self._ids.get(canonical(schema))
        if schema_id is None:
            schema_id = max(self._texts, default=0) + 1
        number = max(self._subjects.get(subject, {}), default=0) + 1
        return Version(subject, number, schema_id, self._texts.get(schema_id, text))


def differences(level: str, schema: Any, earlier: Version) -> list[str]:
    """Why a level forbids a schema after one earlier version."""
    before = json.loads(earlier.text)
    found: list[str] = []
    if level.startswith(("BACKWARD", "FULL")):
        found += [
            f"new schema cannot read version {earlier.number}: {reason}"
            for reason in incompatibilities(schema, before)
        ]
    if level.startswith(("FORWARD", "FULL")):
        found += [
            f"version {earlier.number} cannot read the new schema: {reason}"
            for reason in incompatibilities(before, schema)
        ]
    return found
