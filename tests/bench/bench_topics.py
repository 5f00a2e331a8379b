"""The topics of one run of one contender: made before it, verified after it, removed when done.

A contender that lost, repeated or miscomputed anything must not win by it: every run has to leave
exactly as many records as the events call for, and the first run of each the same numbers in them.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import fastavro
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from routekeel.schemas.avro import reader_schema
from routekeel.schemas.records import TELEMETRY, WEIGHTS
from routekeel.schemas.records.telemetry import LAYER_FIELDS
from routekeel.streams.settings import Settings, load_settings
from routekeel.streams.topics import admin_client, ensure_topics, log_bounds

COMPARED = {
    "telemetry": (TELEMETRY, (*(f.name for f in LAYER_FIELDS), "load", "load_controlled")),
    "weights": (WEIGHTS, ("w_hat", "beta", "lam")),
}


@dataclass(frozen=True)
class RunTopics:
    """Names that begin with the run's tag, but for the events, which all runs of a case share."""

    tag: str
    settings: Settings
    flags: dict[str, Any]

    @classmethod
    def make(cls, state_dir: Any, tag: str, source: str, **more: Any) -> RunTopics:
        """Create the topics. `more` are further settings, dots written as two underscores."""
        flags = {
            "stack.state_dir": str(state_dir),
            "topics.logits": source,
            "topics.telemetry": f"{tag}.telemetry",
            "topics.weights": f"{tag}.weights",
            "topics.dlq": f"{tag}.dlq",
            "worker.app_id": tag,
        } | {name.replace("__", "."): value for name, value in more.items()}
        settings = load_settings(flags=flags).settings
        ensure_topics(settings)
        return cls(tag, settings, flags)

    def environment(self) -> dict[str, str]:
        """Variables that give a process of its own the same settings."""
        made = {
            f"ROUTEKEEL_{name.upper().replace('.', '__')}": str(value)
            for name, value in self.flags.items()
        }
        return {**os.environ, **made}

    def ends(self, topic: str) -> int:
        """How many records a topic has been given."""
        keys = [(topic, partition) for partition in range(self.settings.topics.partitions)]
        return sum(end for _, end in log_bounds(self.settings, keys).values())

    def verify(self, name: str, telemetry: int, weights: int) -> None:
        """Raises SystemExit unless exactly so many records were written, and none refused."""
        topics = self.settings.topics
        want = {topics.telemetry: telemetry, topics.weights: weights, topics.dlq: 0}
        have = {topic: self.ends(topic) for topic in want}
        if have != want:
            raise SystemExit(
                f"{name} does not count: it wrote {have}, the events call for {want}; nothing was measured"
            )

    def sample(self, per_partition: int) -> dict[tuple[str, int, int], int]:
        """Checksums of what the kernel found, for the first records of every partition."""
        topics = self.settings.topics
        found: dict[tuple[str, int, int], int] = {}
        for kind, topic in (("telemetry", topics.telemetry), ("weights", topics.weights)):
            record, fields = COMPARED[kind]
            schema = reader_schema(record)
            for value in _first_values(self.settings, topic, per_partition):
                buffer = BytesIO(value)
                buffer.seek(5)
                fields_of: dict[str, Any] = fastavro.schemaless_reader(buffer, schema, None)  # type: ignore[assignment]
                key = (kind, fields_of["source_partition"], fields_of["source_offset"])
                found[key] = zlib.crc32(b"".join([fields_of[name] for name in fields]))
        return found

    def remove(self, names: Iterable[str] = ()) -> None:
        """Delete every topic of this run, the contender's own state logs included, and `names`."""
        admin = admin_client(self.settings)
        all_names = admin.list_topics(timeout=15).topics
        mine = sorted({name for name in all_names if self.tag in name} | set(names))
        for future in admin.delete_topics(mine, operation_timeout=30).values() if mine else ():
            future.result()


def _first_values(settings: Settings, topic: str, per_partition: int) -> list[bytes]:
    consumer = Consumer(
        settings.kafka.client_config() | {"group.id": "bench-sample", "enable.auto.commit": False}
    )
    keys = [(topic, partition) for partition in range(settings.topics.partitions)]
    values: list[bytes] = []
    for (_, partition), (_, end) in log_bounds(settings, keys).items():
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING)])
        wanted = min(per_partition, end)
        while wanted:
            messages = consumer.consume(wanted, timeout=5)
            if not messages:
                raise SystemExit(f"{topic}[{partition}] cannot be read back")
            values += [message.value() for message in messages]
            wanted -= len(messages)
    consumer.close()
    return values


def compare(
    name: str, sample: dict[tuple[str, int, int], int], reference: dict[tuple[str, int, int], int]
) -> int:
    """How many records two contenders have in common in their samples; raises SystemExit if any differs."""
    shared = sample.keys() & reference.keys()
    different = sorted(key for key in shared if sample[key] != reference[key])
    if different or not shared:
        raise SystemExit(
            f"{name} does not count: of {len(shared)} records compared with the plain loop's "
            f"{len(different)} differ, first {different[:3]}"
        )
    return len(shared)
