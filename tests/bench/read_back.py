"""What a run left on the broker: its records, their bytes, and what the broker keeps of them.

Bytes that are compared with each other are counted before compression, keys, values and headers: how
well random logits compress says nothing about anybody's. What the broker stores is counted apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, TopicPartition

from routekeel.streams.log_bounds import log_bounds
from routekeel.streams.settings import Settings
from routekeel.streams.topics import changelog_topic

AT_ONCE = 500
PATIENCE_S = 10.0


def records_of(settings: Settings, topic: str) -> Iterator[Message]:
    """Every record that was ever written to a topic. Raises SystemExit when some are not there any more."""
    consumer = Consumer(
        settings.kafka.client_config() | {"group.id": "bench-read", "enable.auto.commit": False}
    )
    keys = [(topic, partition) for partition in range(settings.topics.partitions)]
    try:
        for (_, partition), (_, end) in log_bounds(settings, keys).items():
            consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING)])
            left = end
            while left:
                messages = consumer.consume(min(left, AT_ONCE), timeout=PATIENCE_S)
                if not messages or any(message.error() for message in messages):
                    raise SystemExit(f"{topic}[{partition}] cannot be read back as a whole")
                yield from messages
                left -= len(messages)
    finally:
        consumer.close()


def plain_bytes(settings: Settings, topic: str) -> int:
    """Bytes of a topic's keys, values and headers, before compression."""
    return sum(
        len(record.key() or b"")
        + len(record.value() or b"")
        + sum(len(name) + len(value or b"") for name, value in record.headers() or ())
        for record in records_of(settings, topic)
    )


def stored_bytes(state_dir: Path, topic: str) -> int:
    """Bytes of the broker's files of a topic: compressed as it was sent, one replica."""
    files = state_dir.rglob("*.log")
    return sum(file.stat().st_size for file in files if _topic_of(file.parent) == topic)


def _topic_of(folder: Path) -> str:
    return folder.name.rpartition("-")[0]


def bytes_written(settings: Settings, state_dir: Path) -> dict[str, dict[str, int]]:
    """{"plain", "stored"} of everything one run of this app reads and writes."""
    topics = settings.topics
    names = {
        "logits": topics.logits,
        "telemetry": topics.telemetry,
        "weights": topics.weights,
        "state log": changelog_topic(settings),
    }
    return {
        what: {"plain": plain_bytes(settings, name), "stored": stored_bytes(state_dir, name)}
        for what, name in names.items()
    }
