"""A schema's canonical form: two texts that mean the same get the same id.

White space, the order of attributes and the spelling of names do not count; documentation,
defaults and aliases do, since a reader sees them.
"""

from __future__ import annotations

import json
from typing import Any

import fastavro

from routekeel.infra.local.registry.faults import RegistryError, invalid_schema
from routekeel.schemas.evolution import PRIMITIVES, incompatibilities

NAMED = frozenset({"record", "error", "enum", "fixed"})


def parsed(text: object, kind: object = "AVRO", references: object = None) -> Any:
    """The schema as JSON, checked. Raises RegistryError (42201)."""
    if kind not in (None, "AVRO"):
        raise invalid_schema(f"type {kind} is not served here, only AVRO")
    if references:
        raise invalid_schema("references to other subjects are not served here")
    if not isinstance(text, str) or not text.strip():
        raise invalid_schema("the schema is empty")
    try:
        schema = json.loads(text)
        fastavro.parse_schema(schema)
        incompatibilities(schema, schema)  # sees names that do not resolve
    except RegistryError:
        raise
    except Exception as error:
        raise invalid_schema(f"{text[:200]!r}: {error}") from error
    return schema


def canonical(schema: Any) -> str:
    """The canonical text.

    >>> canonical({"type": "string"}) == canonical("string")
    True
    """
    return json.dumps(_plain(schema, ""), sort_keys=True, separators=(",", ":"))


def _plain(schema: Any, namespace: str) -> Any:
    if isinstance(schema, str):
        return schema if schema in PRIMITIVES or "." in schema else _full(schema, namespace)
    if isinstance(schema, list):
        return [_plain(part, namespace) for part in schema]
    kind = schema["type"]
    if isinstance(kind, dict | list) and set(schema) == {"type"}:
        return _plain(kind, namespace)
    out = dict(schema)
    if kind in NAMED:
        out["name"] = _full(schema["name"], str(schema.get("namespace") or namespace))
        out.pop("namespace", None)
        namespace = out["name"].rpartition(".")[0]
    if kind in ("record", "error"):
        out["fields"] = [
            {**row, "type": _plain(row["type"], namespace)} for row in schema["fields"]
        ]
    elif kind == "array":
        out["items"] = _plain(schema["items"], namespace)
    elif kind == "map":
        out["values"] = _plain(schema["values"], namespace)
    elif set(out) == {"type"}:
        return _plain(kind, namespace)
    return out


def _full(name: str, namespace: str) -> str:
    return name if "." in name or not namespace else f"{namespace}.{name}"
