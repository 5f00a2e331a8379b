"""DeadLetter: a record that could not be processed, whole, with the reason and its origin."""

from __future__ import annotations

from routekeel.schemas.fields import Field, Record
from routekeel.schemas.kinds import BYTES, INT, LABEL, LONG, OFFSET, STRING, TIMESTAMP, Sequence

DEAD_LETTER = Record(
    "DeadLetter",
    1,
    "A refused record. Nothing is thrown away: key, value and headers are the original bytes.",
    (
        Field("source_topic", LABEL, "Topic the record was read from."),
        Field(
            "source_topic_id", LABEL, "Kafka's id of that topic (a recreated topic has another)."
        ),
        Field("source_partition", INT, "Partition of that topic."),
        Field(
            "source_offset",
            OFFSET,
            "Offset in that partition; with the three above, the record's identity.",
        ),
        Field("record_time_us", TIMESTAMP, "The record's Kafka timestamp.", unit="µs"),
        Field("stage", LABEL, "Who refused it: worker or sink."),
        Field(
            "error_class",
            LABEL,
            "Machine-readable reason, e.g. unknown_schema_id, non_finite_logits.",
        ),
        Field("error_message", STRING, "What is wrong, in a sentence."),
        Field("key", BYTES, "The record's key.", nullable=True),
        Field("value", BYTES, "The record's value (null for a tombstone).", nullable=True),
        Field("header_names", Sequence(STRING), "Names of the record's headers, in order."),
        Field(
            "header_values", Sequence(BYTES, item_nullable=True), "Their values, in the same order."
        ),
        Field("value_bytes", LONG, "Length of the value.", unit="bytes"),
    ),
)
