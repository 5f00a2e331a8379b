"""What the sink reads, without a worker: outputs published to the real topics, again where asked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from confluent_kafka import Producer

from routekeel.schemas.codec import Encoder
from routekeel.schemas.records import DEAD_LETTER, TELEMETRY, WEIGHTS
from routekeel.schemas.registry import SchemaIds, subject_of
from routekeel.streams.history.store import connect
from routekeel.streams.settings import Settings
from tests.unit.sink_records import letter_fields, telemetry_fields, weights_fields

LAYERS = 2
TABLES = ("telemetry", "telemetry_tokens", "weights", "state_snapshots", "dead_letters")
_ROW = {"telemetry": "layer", "weights": "layer", "telemetry_tokens": "(position, layer)"}


class Feed:
    """Publishes telemetry and weights of source offsets, partition by partition."""

    def __init__(self, settings: Settings, topic_id: str = "logits-1") -> None:
        self.settings = settings
        self.topic_id = topic_id
        ids = SchemaIds(settings.registry.url)
        topics = settings.topics
        self._encoders = {
            topic: Encoder(record, ids.register(record, subject_of(topic)))
            for topic, record in (
                (topics.telemetry, TELEMETRY),
                (topics.weights, WEIGHTS),
                (topics.dlq, DEAD_LETTER),
            )
        }
        self._producer = Producer(
            settings.kafka.client_config() | {"enable.idempotence": True, "linger.ms": 5}
        )

    def publish(self, offsets: Iterable[int], partitions: Iterable[int] = (0, 1, 2, 3)) -> None:
        """Telemetry (every tenth with token rows) and weights for these source offsets, acknowledged."""
        topics, partitions = self.settings.topics, tuple(partitions)
        for offset in offsets:
            for partition in partitions:
                steps = 3 if offset % 10 == 0 else 0
                where: dict[str, Any] = {
                    "partition": partition, "topic_id": self.topic_id, "layers": LAYERS
                }  # fmt: skip
                self.send(
                    topics.telemetry,
                    partition,
                    telemetry_fields(offset, token_steps=steps, **where),
                )
                self.send(topics.weights, partition, weights_fields(offset, **where))
        self.flush()

    def letters(self, offsets: Iterable[int], partition: int = 0) -> None:
        """Dead letters about these source offsets."""
        for offset in offsets:
            fields = letter_fields(offset, partition=partition, topic_id=self.topic_id)
            self.send(self.settings.topics.dlq, partition, fields)
        self.flush()

    def encode(self, topic: str, fields: dict[str, Any]) -> bytes:
        """One record of the topic's kind, framed with the id that the registry gave."""
        return self._encoders[topic].encode(fields)

    def send(self, topic: str, partition: int, fields: dict[str, Any]) -> None:
        """Hand one record over."""
        self.raw(topic, partition, self.encode(topic, fields))

    def raw(self, topic: str, partition: int, value: bytes | None) -> None:
        """Hand any bytes over."""
        while True:
            try:
                self._producer.produce(
                    topic, value, b"key", partition, headers=[("trace", b"\x01")]
                )
                self._producer.poll(0)
                return
            except BufferError:
                self._producer.poll(0.1)

    def flush(self) -> None:
        """Wait until all of it is acknowledged."""
        assert self._producer.flush(60) == 0


def counts(settings: Settings) -> dict[str, tuple[int, int]]:
    """(rows, distinct rows) of every table."""
    client = connect(settings.clickhouse, database=settings.clickhouse.database)
    try:
        found = {}
        for table in TABLES:
            key = f"source_topic_id, source_partition, source_offset, {_ROW.get(table, '0')}"
            query = f"SELECT count(), uniqExact({key}) FROM {table}"
            rows, distinct = client.query(query).first_row
            found[table] = int(rows), int(distinct)
        return found
    finally:
        client.close()


def expected(records: int) -> dict[str, tuple[int, int]]:
    """The counts for so many source offsets (from 0) in each of four partitions, no dead letters."""
    sampled = (records + 9) // 10
    rows = {
        "telemetry": 4 * records * LAYERS,
        "telemetry_tokens": 4 * sampled * 3 * LAYERS,
        "weights": 4 * records * LAYERS,
        "state_snapshots": 4 * records,
        "dead_letters": 0,
    }
    return {table: (n, n) for table, n in rows.items()}
