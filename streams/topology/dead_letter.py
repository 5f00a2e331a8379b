"""The DeadLetter record of a refused record: the original bytes with the reason.

With its envelope a record near the topic's limit no longer fits. What is left out then is decided
here by size alone, so that worker, sink and replay make the same letter; the original is in its log.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from routekeel.streams.topology.records import DeadLetter, Source

ENVELOPE_BYTES: Final = 1024
"""More than Kafka adds to a record's key and value (its own header and the batch's)."""
MESSAGE_CHARACTERS_MAX: Final = 4000

Encode = Callable[[Mapping[str, Any]], bytes]


def dead_letter(
    source: Source, letter: DeadLetter, stage: str, encode: Encode, bytes_max: int
) -> tuple[bytes | None, bytes]:
    """Key and value of the letter as a Kafka record of at most `bytes_max` bytes.

    The record's value is left out first, then its headers, then its key, each only where the letter
    does not fit with it; the message says so. Deterministic: a repeat has the same bytes.
    """
    fields = fitting_fields(source, letter, stage, encode, bytes_max)
    return fields["key"], encode(fields)


def fitting_fields(
    source: Source, letter: DeadLetter, stage: str, encode: Encode, bytes_max: int
) -> dict[str, Any]:
    """The fields of the letter that `dead_letter` makes."""
    fields = dead_letter_fields(source, letter, stage)
    for part, without in (
        ("value is", {"value": None}),
        ("headers are", {"header_names": [], "header_values": []}),
        ("key is", {"key": None}),
    ):
        if len(encode(fields)) + len(fields["key"] or b"") + ENVELOPE_BYTES <= bytes_max:
            break
        if any(fields[name] for name in without):
            fields |= without
            fields["error_message"] += f" (the {part} too large for the dead letters)"
    return fields


def dead_letter_fields(source: Source, letter: DeadLetter, stage: str = "worker") -> dict[str, Any]:
    """The fields of the whole letter, whatever its size."""
    record = letter.record
    return {
        "source_topic": source.topic,
        "source_topic_id": source.topic_id,
        "source_partition": source.partition,
        "source_offset": record.offset,
        "record_time_us": record.timestamp_ms * 1000,
        "stage": stage,
        "error_class": letter.error_class,
        "error_message": letter.message[:MESSAGE_CHARACTERS_MAX],
        "key": record.key,
        "value": record.value,
        "header_names": [name for name, _ in record.headers or ()],
        "header_values": [value for _, value in record.headers or ()],
        "value_bytes": len(record.value or b""),
    }
