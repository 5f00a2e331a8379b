"""What can be wrong with the bytes of a record, and with the registry that explains them.

A SchemaError is about the data and final: the record belongs into the dead letters. A
RegistryUnavailable says nothing about the data: the caller tries again.
"""

from __future__ import annotations


class SchemaError(Exception):
    """The bytes or the value are not what the schema says; trying again does not help."""


class BadFraming(SchemaError):
    """Not Confluent framing: shorter than five bytes, or the first byte is not 0."""


class UnknownSchemaId(SchemaError):
    """The registry was asked and does not know this id."""

    def __init__(self, schema_id: int) -> None:
        super().__init__(f"the registry has no schema with id {schema_id}")
        self.schema_id = schema_id


class WrongRecord(SchemaError):
    """The schema belongs to another record, or to a version that this reader cannot read."""


class BadBody(SchemaError):
    """The body does not decode by its schema: truncated, trailing bytes, or not Avro at all."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class BadValue(SchemaError):
    """A value that cannot be encoded: a field is missing or of the wrong type."""


class BadShape(SchemaError):
    """A matrix has another length than the fields that name its axes imply."""


class BadRow(SchemaError):
    """A record that does not fit its table. `index` is its place in the batch, so that the sink can
    set it aside and insert the rest."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(f"record {index} of the batch: {reason}")
        self.index = index
        self.reason = reason


class SchemaRefused(SchemaError):
    """The registry refuses a schema, e.g. as incompatible with the versions before it."""


class RegistryUnavailable(Exception):
    """The registry gave no answer about the schema; to be retried. `reason` says what happened."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
