"""From framed bytes to fields, or to the refusal that says what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from routekeel.schemas.codec import Decoder
from routekeel.schemas.errors import BadFraming, SchemaError, UnknownSchemaId, WrongRecord
from routekeel.streams.topology.records import Refusal

_CLASSES = (
    (BadFraming, "bad_framing"),
    (UnknownSchemaId, "unknown_schema_id"),
    (WrongRecord, "wrong_record"),
)


def decode_or_refuse(decoder: Decoder, value: bytes) -> Mapping[str, Any]:
    """The record's fields. Raises Refusal for bytes that are not such a record.

    A registry that does not answer condemns nothing: RegistryUnavailable goes through.
    """
    try:
        return decoder.decode(value)
    except SchemaError as error:
        name = next((name for kind, name in _CLASSES if isinstance(error, kind)), "bad_body")
        raise Refusal(name, str(error)) from error
