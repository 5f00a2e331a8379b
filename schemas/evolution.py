"""Can a reader's Avro schema read what a writer's schema wrote? Avro's rules of schema resolution.

Used before a schema is published: by the local registry and by the check on published versions.
Pure and without dependencies: parsed JSON in, a list of reasons out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Schema = Any  # parsed JSON: a type's name, a list (union) or an object

PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
PROMOTIONS = {
    "int": frozenset({"long", "float", "double"}),
    "long": frozenset({"float", "double"}),
    "float": frozenset({"double"}),
    "string": frozenset({"bytes"}),
    "bytes": frozenset({"string"}),
}
_REQUIRED = {"record": ("fields", list), "enum": ("symbols", list), "fixed": ("size", int)}
_ABSENT = object()


@dataclass(frozen=True, eq=False)
class _Type:
    """One node of a schema. A named type is one object, however often it is referred to."""

    kind: str
    name: str = ""
    aliases: frozenset[str] = frozenset()
    branches: list[_Type] = field(default_factory=list)  # of a union; items, values
    fields: dict[str, _Field] = field(default_factory=dict)
    symbols: tuple[str, ...] = ()
    default: object = _ABSENT
    size: int = 0
    decimal: tuple[int, int] | None = None

    @property
    def label(self) -> str:
        """How a message calls it."""
        return f"{self.kind} {self.name}" if self.name else self.kind


@dataclass(frozen=True)
class _Field:
    type: _Type
    aliases: frozenset[str]
    has_default: bool


def incompatibilities(reader: Schema, writer: Schema) -> list[str]:
    """Why data written with `writer` cannot be read with `reader`; empty when they can.

    Args:
        reader: Parsed Avro schema of the side that reads.
        writer: Parsed Avro schema that the data were written with.

    Returns:
        One message for every place, as "path: reason".

    Raises:
        ValueError: One of the two is no Avro schema.

    >>> incompatibilities("long", "int"), incompatibilities("int", "long")
    ([], ['(root): reader int cannot read writer long'])
    """
    return list(_differences(_parse(reader), _parse(writer), "(root)", frozenset()))


def _parse(schema: Schema) -> _Type:
    return _Parser().parse(schema, "")


class _Parser:
    """Turns parsed JSON into nodes, with names resolved in their namespaces."""

    def __init__(self) -> None:
        self._named: dict[str, _Type] = {}

    def parse(self, schema: Schema, namespace: str) -> _Type:
        if isinstance(schema, str):
            return self._reference(schema, namespace)
        if isinstance(schema, list):
            return _Type("union", branches=[self.parse(part, namespace) for part in schema])
        if not isinstance(schema, Mapping) or "type" not in schema:
            raise ValueError(f"not an Avro schema: {schema!r}")
        kind = schema["type"]
        if isinstance(kind, Mapping | list):
            return self.parse(kind, namespace)
        if kind == "array":
            return _Type(kind, branches=[self.parse(schema.get("items"), namespace)])
        if kind == "map":
            return _Type(kind, branches=[self.parse(schema.get("values"), namespace)])
        if kind in ("record", "error", "enum", "fixed"):
            return self._define(schema, namespace)
        if kind in PRIMITIVES:
            return _Type(kind, decimal=_decimal(schema))
        return self._reference(str(kind), namespace)

    def _reference(self, name: str, namespace: str) -> _Type:
        if name in PRIMITIVES:
            return _Type(name)
        for full in (_full(name, namespace), name):
            if full in self._named:
                return self._named[full]
        raise ValueError(f"unknown type {name!r}")

    def _define(self, schema: Mapping[str, Any], namespace: str) -> _Type:
        if not isinstance(schema.get("name"), str):
            raise ValueError(f"a {schema['type']} without a name")
        full = _full(schema["name"], str(schema.get("namespace") or namespace))
        inner = full.rpartition(".")[0]
        kind = "record" if schema["type"] == "error" else str(schema["type"])
        part, shape = _REQUIRED[kind]
        if not isinstance(schema.get(part), shape):
            raise ValueError(f"{kind} {full} without {part}")
        made = _Type(
            kind,
            name=full,
            aliases=frozenset(_full(alias, inner) for alias in schema.get("aliases", ())),
            symbols=tuple(schema.get("symbols", ())),
            default=schema.get("default", _ABSENT),
            size=int(schema.get("size", 0)),
            decimal=_decimal(schema),
        )
        self._named[full] = made
        for row in schema.get("fields", ()):
            made.fields[row["name"]] = _Field(
                self.parse(row["type"], inner), frozenset(row.get("aliases", ())), "default" in row
            )
        return made


def _full(name: str, namespace: str) -> str:
    return name if "." in name or not namespace else f"{namespace}.{name}"


def _decimal(schema: Mapping[str, Any]) -> tuple[int, int] | None:
    if schema.get("logicalType") != "decimal":
        return None
    return int(schema.get("precision", 0)), int(schema.get("scale", 0))


def _differences(
    reader: _Type, writer: _Type, path: str, open_pairs: frozenset[tuple[int, int]]
) -> Iterator[str]:
    """The messages for one pair. `open_pairs` are records being compared further up."""
    if writer.kind == "union":
        for branch in writer.branches:
            yield from _differences(reader, branch, path, open_pairs)
    elif reader.kind == "union":
        if not any(
            not any(_differences(branch, writer, path, open_pairs)) for branch in reader.branches
        ):
            listed = ", ".join(branch.label for branch in reader.branches) or "nothing"
            yield f"{path}: no branch of reader union [{listed}] reads writer {writer.label}"
    elif reader.kind != writer.kind:
        if reader.kind not in PROMOTIONS.get(writer.kind, ()):
            yield f"{path}: reader {reader.label} cannot read writer {writer.label}"
    elif reader.name and not _same_name(reader, writer):
        yield f"{path}: reader {reader.label} is named otherwise than writer {writer.label}"
    elif reader.decimal and writer.decimal and reader.decimal != writer.decimal:
        yield f"{path}: decimal precision and scale are {reader.decimal}, not {writer.decimal}"
    elif reader.kind in ("array", "map"):
        suffix = "[]" if reader.kind == "array" else "{}"
        yield from _differences(reader.branches[0], writer.branches[0], path + suffix, open_pairs)
    elif reader.kind == "fixed" and reader.size != writer.size:
        yield f"{path}: fixed size is {reader.size}, not the writer's {writer.size}"
    elif reader.kind == "enum":
        missing = [symbol for symbol in writer.symbols if symbol not in reader.symbols]
        if missing and reader.default is _ABSENT:
            yield f"{path}: reader enum lacks {', '.join(missing)} and has no default symbol"
    elif reader.kind == "record" and (id(reader), id(writer)) not in open_pairs:
        deeper = open_pairs | {(id(reader), id(writer))}
        yield from _record_differences(reader, writer, path, deeper)


def _record_differences(
    reader: _Type, writer: _Type, path: str, open_pairs: frozenset[tuple[int, int]]
) -> Iterator[str]:
    for name, wanted in reader.fields.items():
        below = name if path == "(root)" else f"{path}.{name}"
        names = [name, *sorted(wanted.aliases)]
        source = next((writer.fields[n] for n in names if n in writer.fields), None)
        if source is not None:
            yield from _differences(wanted.type, source.type, below, open_pairs)
        elif not wanted.has_default:
            yield f"{below}: the writer has no such field and the reader's has no default"


def _same_name(reader: _Type, writer: _Type) -> bool:
    """Unqualified names match, or the reader has the writer's name among its aliases."""
    own = reader.name.rpartition(".")[2] == writer.name.rpartition(".")[2]
    return own or writer.name in reader.aliases
