"""What the contenders must have in common: the numbers in all records of a few sessions, to the byte.

Whole sessions and not the first records of a topic: those are first chunks only, which all have Weights
with the state in them, and whoever wrote the state into every record would not be found out.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from io import BytesIO
from typing import Any

import fastavro

from routekeel.operators.state import state_width
from routekeel.schemas.avro import reader_schema
from routekeel.schemas.records import TELEMETRY, WEIGHTS
from routekeel.schemas.records.telemetry import LAYER_FIELDS
from routekeel.streams.settings import Settings

from .read_back import records_of

SESSIONS = frozenset(f"session-{number}".encode() for number in range(10))
COMPARED = {
    "telemetry": (TELEMETRY, (*(f.name for f in LAYER_FIELDS), "load", "load_controlled")),
    "weights": (WEIGHTS, ("w_hat", "beta", "lam", "state")),
}
# By kind, partition and offset of the event; what was found, as a checksum.
Sample = dict[tuple[str, int, int], int]


def sample(settings: Settings) -> Sample:
    """Checksums of what the kernel found, for every record of the sampled sessions."""
    topics = settings.topics
    found: Sample = {}
    for kind, topic in (("telemetry", topics.telemetry), ("weights", topics.weights)):
        record, names = COMPARED[kind]
        schema = reader_schema(record)
        for message in records_of(settings, topic):
            if message.key() not in SESSIONS:
                continue
            buffer = BytesIO(message.value())
            buffer.seek(5)
            fields: dict[str, Any] = fastavro.schemaless_reader(buffer, schema, None)  # type: ignore[assignment]
            key = (kind, fields["source_partition"], fields["source_offset"])
            found[key] = zlib.crc32(b"".join(compared(fields, name) for name in names))
    return found


def compared(fields: Mapping[str, Any], name: str) -> bytes:
    """A field's bytes; of the state its matrix.

    Before the matrix this app's snapshot has the session's requests, producers and offsets, which the
    peers do not keep: the state is there or not alike, ends alike, and is a little longer here.
    """
    value: bytes = fields[name]
    if name != "state" or not value:
        return value
    matrix = value[-4 * len(fields["layers"]) * state_width(fields["experts"]) :]
    return b"state" + matrix


def compare(name: str, found: Sample, reference: Sample) -> int:
    """How many records two contenders have in common in their samples; raises SystemExit if any differs."""
    shared = found.keys() & reference.keys()
    different = sorted(key for key in shared if found[key] != reference[key])
    if different or not shared:
        raise SystemExit(
            f"{name} does not count: of {len(shared)} records compared with the plain loop's "
            f"{len(different)} differ, first {different[:3]}"
        )
    return len(shared)
