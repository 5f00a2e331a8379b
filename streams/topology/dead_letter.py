"""The DeadLetter record of a refused record: the original bytes with the reason."""

from __future__ import annotations

from typing import Any

from routekeel.streams.topology.records import DeadLetter, Source


def dead_letter_fields(source: Source, letter: DeadLetter, stage: str = "worker") -> dict[str, Any]:
    """The fields of the DeadLetter record; deterministic, so that a repeat has the same bytes."""
    record = letter.record
    return {
        "source_topic": source.topic,
        "source_topic_id": source.topic_id,
        "source_partition": source.partition,
        "source_offset": record.offset,
        "record_time_us": record.timestamp_ms * 1000,
        "stage": stage,
        "error_class": letter.error_class,
        "error_message": letter.message,
        "key": record.key,
        "value": record.value,
        "header_names": [name for name, _ in record.headers or ()],
        "header_values": [value for _, value in record.headers or ()],
        "value_bytes": len(record.value or b""),
    }
