"""Records to bytes and back: Confluent framing (0, schema id as big-endian int32), the Avro body.

Whatever bytes arrive, decoding ends in a dict or in a SchemaError. Schema ids are resolved once;
after that no call leaves the process.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from io import BytesIO
from typing import Any, Protocol

from fastavro import schemaless_reader
from fastavro.validation import ValidationError, validate

from routekeel.schemas.avro import AvroSchema, bare, full_name, parse, reader_schema, schema
from routekeel.schemas.compiled import encoder, range_check
from routekeel.schemas.errors import BadBody, BadFraming, BadValue, WrongRecord
from routekeel.schemas.evolution import incompatibilities
from routekeel.schemas.fields import Record

MAGIC = 0
_ADDRESS = re.compile(r"<[^<>]* at 0x[0-9a-f]+>")
HEADER_BYTES = 5


class WriterSchemas(Protocol):
    """Where a schema id is looked up; `routekeel.schemas.registry` has a real and a fixed one."""

    def writer(self, schema_id: int) -> Mapping[str, Any]:
        """The schema of that id. Raises UnknownSchemaId or RegistryUnavailable."""
        ...


def header(schema_id: int) -> bytes:
    """The five bytes of Confluent framing.

    >>> header(7).hex()
    '0000000007'
    """
    return bytes([MAGIC]) + schema_id.to_bytes(4, "big", signed=True)


def schema_id_of(data: bytes) -> int:
    """The schema id that framed bytes carry. Raises BadFraming.

    >>> schema_id_of(header(7) + b"body")
    7
    """
    if len(data) < HEADER_BYTES or data[0] != MAGIC:
        raise BadFraming(
            f"{len(data)} bytes that start with {data[:HEADER_BYTES].hex() or 'nothing'}"
        )
    return int.from_bytes(data[1:HEADER_BYTES], "big", signed=True)


class Encoder:
    """Encodes values of one record under one schema id. Holds no state between calls: thread-safe.

    A value is a dict with every field that has no default; times are int µs, matrices bytes, enums
    their symbol. Raises BadValue where a field is missing or of the wrong type.

    >>> from routekeel.schemas.records import POLICY
    >>> from routekeel.schemas.registry import FixedSchemaIds
    >>> ids = FixedSchemaIds()
    >>> encoder = Encoder(POLICY, ids.register(POLICY, "routekeel.policy-value"))
    >>> value = {"policy_id": "p", "version": 1, "issued_at_us": 1_700_000_000_000_000,
    ...          "stage": "shadow", "salt": "s", "arms": ["shadow"], "arm_bucket_ends": [10000],
    ...          "arm_parameters": ["{}"], "applied": False}
    >>> data = encoder.encode(value)
    >>> data[:5].hex()
    '0000000001'
    >>> decoded = Decoder(POLICY, ids).decode(data)
    >>> decoded["issued_at_us"], decoded["stage"], decoded["quality_budget"]
    (1700000000000000, 'shadow', None)
    """

    __slots__ = ("_encode", "_header", "record", "schema_id")

    def __init__(self, record: Record, schema_id: int) -> None:
        self.record = record
        self.schema_id = schema_id
        self._header = header(schema_id)
        self._encode = encoder(record)

    def encode(self, value: Mapping[str, Any]) -> bytes:
        """The framed bytes of one value."""
        try:
            return self._encode(value, self._header)
        except Exception as error:  # whatever the wrong type leads to
            raise self._bad_value(value, error) from error

    def _bad_value(self, value: Mapping[str, Any], error: Exception) -> BadValue:
        try:
            validate(value, reader_schema(self.record))
        except ValidationError as invalid:
            return BadValue(f"{self.record.name}: {invalid}")
        except Exception:  # the value is not even a mapping
            pass
        return BadValue(f"{self.record.name}: {type(error).__name__}: {error}")


PLANS_KEPT_MAX = 1024


class Decoder:
    """Decodes records of one kind, whichever version of the schema wrote them.

    Fields that the writer did not have get their defaults, fields that we do not know are skipped,
    enum symbols that we do not know become the enum's default. Resolution is skipped where the
    writer's schema is ours. Thread-safe.

    Avro has no checksum: a changed byte may give another valid value. What is refused: truncation,
    trailing bytes, impossible lengths, bad UTF-8, an int of more than 32 bits.
    """

    __slots__ = ("_fits", "_plans", "_reader", "_writers", "record")

    def __init__(self, record: Record, writers: WriterSchemas) -> None:
        self.record = record
        self._writers = writers
        self._reader = reader_schema(record)
        self._fits = range_check(record)
        self._plans: dict[int, tuple[AvroSchema, AvroSchema | None]] = {}

    def decode(self, data: bytes) -> dict[str, Any]:
        """The value of framed bytes, every field present; times int µs, matrices bytes.

        Raises BadFraming, UnknownSchemaId, WrongRecord, BadBody (all SchemaError), and
        RegistryUnavailable, which is not about the data.
        """
        plan = self._planned(schema_id_of(data))
        buffer = BytesIO(data)
        buffer.seek(HEADER_BYTES)
        try:
            value: dict[str, Any] = schemaless_reader(buffer, *plan)
            fits = self._fits(value)
        except (
            Exception
        ) as error:  # fastavro raises what the bytes lead to: EOFError, IndexError, …
            # fastavro names the buffer by its address: a message must be the same on every run.
            reason = _ADDRESS.sub("the body", str(error))
            raise BadBody(f"{self.record.name}: {type(error).__name__}: {reason}") from error
        rest = len(data) - buffer.tell()
        if rest:
            raise BadBody(f"{self.record.name}: {rest} bytes after the end of the body")
        if not fits:
            raise BadBody(f"{self.record.name}: an int of more than 32 bits")
        return value

    def is_ours(self, schema_id: int) -> bool:
        """Whether the schema of that id is our own, so that its records need no resolution.

        Raises UnknownSchemaId, WrongRecord and RegistryUnavailable.
        """
        return self._planned(schema_id)[1] is None

    def _planned(self, schema_id: int) -> tuple[AvroSchema, AvroSchema | None]:
        plan = self._plans.get(schema_id)
        if plan is None:
            plan = self._plan(schema_id)
            if len(self._plans) >= PLANS_KEPT_MAX:
                self._plans.clear()  # what is still in use is planned again
            self._plans[schema_id] = plan
        return plan

    def _plan(self, schema_id: int) -> tuple[AvroSchema, AvroSchema | None]:
        published = self._writers.writer(schema_id)
        name = full_name(self.record)
        if not isinstance(published, dict):
            raise WrongRecord(f"schema {schema_id} is no record")
        namespace = published.get("namespace")
        found = f"{namespace}.{published.get('name')}" if namespace else str(published.get("name"))
        if found != name:
            raise WrongRecord(f"schema {schema_id} is {found}, not {name}")
        ours = schema(self.record)
        if bare(published) == bare(ours):
            return self._reader, None
        try:
            writer = parse(published)
            reasons = incompatibilities(ours, published)
        except ValueError as error:
            raise WrongRecord(f"schema {schema_id} cannot be read: {error}") from error
        if reasons:
            raise WrongRecord(f"schema {schema_id} cannot be read as {name}: {reasons[0]}")
        return writer, self._reader
