"""How a field and a record are declared; the declarations themselves are in `records/`.

A record is a frozen value. Avro files, ClickHouse tables and the reference page are rendered from
it, so a field is written down once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from routekeel.schemas.kinds import Kind, Matrix


class _Required:
    """The absence of a default."""

    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED: Final = _Required()


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a record.

    `doc` says what it is, with unit and range; `nullable` fields default to null; a field that is
    added after version 1 needs a default (BACKWARD compatibility). `stored` says whether the value
    becomes a ClickHouse column.
    """

    name: str
    kind: Kind
    doc: str
    nullable: bool = False
    default: Any = REQUIRED
    stored: bool = True
    unit: str = ""
    range: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """A named, versioned list of fields: what one Kafka message of one kind holds.

    Compared and hashed by identity, so that what is derived from a record can be cached by it.
    """

    name: str
    version: int
    doc: str
    fields: tuple[Field, ...]

    @property
    def namespace(self) -> str:
        """The Avro namespace of every routekeel record."""
        return "routekeel"

    @property
    def file_name(self) -> str:
        """The name of the published schema file, e.g. `router_logits.v1.avsc`."""
        snake = "".join(
            "_" + c.lower() if c.isupper() and i else c.lower() for i, c in enumerate(self.name)
        )
        return f"{snake}.v{self.version}.avsc"

    def __iter__(self) -> Iterator[Field]:
        return iter(self.fields)

    def field(self, name: str) -> Field:
        """The field of that name; KeyError with the record's name where there is none."""
        for field in self.fields:
            if field.name == name:
                return field
        raise KeyError(f"{self.name} has no field {name!r}")

    def matrices(self, *dims: str) -> tuple[Field, ...]:
        """The fields that are matrices over exactly these axes, in order."""
        return tuple(f for f in self.fields if isinstance(f.kind, Matrix) and f.kind.dims == dims)
