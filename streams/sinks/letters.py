"""Sends records that the sink refuses to the dead letters and waits until they are durable."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer

from routekeel.schemas.codec import Encoder
from routekeel.streams.settings import Settings
from routekeel.streams.sinks.outcomes import Done, Failed, Outcome
from routekeel.streams.topology.dead_letter import dead_letter
from routekeel.streams.topology.records import DeadLetter, Source

DELIVERY_TIMEOUT_S: Final = 30.0
STAGE: Final = "sink"


class LetterProducer:
    """Publishes dead letters to the partition that their record has in its own topic."""

    def __init__(self, settings: Settings, encoder: Encoder, partitions: int) -> None:
        self._topic = settings.topics.dlq
        self._partitions = partitions
        self._encoder = encoder
        self._bytes_max = settings.topics.record_bytes_max
        self._one = threading.Lock()
        self._producer = Producer(
            settings.kafka.client_config()
            | {
                "enable.idempotence": True,
                "compression.type": "lz4",
                "linger.ms": 5,
                "message.max.bytes": self._bytes_max,
                "delivery.timeout.ms": int(DELIVERY_TIMEOUT_S * 1000),
                "log_level": 2,
            }
        )

    def send(self, source: Source, letters: Sequence[DeadLetter]) -> Outcome:
        """Publish the letters; Done only when the brokers have acknowledged every one."""
        failures: list[str] = []
        acknowledged = 0

        def delivered(error: KafkaError | None, _: Any) -> None:
            nonlocal acknowledged
            if error is None:
                acknowledged += 1
            else:
                failures.append(error.str())

        with self._one:
            try:
                for letter in letters:
                    self._produce(source, letter, delivered)
                self._producer.flush(DELIVERY_TIMEOUT_S)
            except (KafkaException, BufferError) as error:
                return Failed(f"dead letters cannot be sent: {error}")
        if failures or acknowledged < len(letters):
            why = failures[0] if failures else "no acknowledgement in time"
            return Failed(f"dead letters were not delivered: {why}")
        return Done()

    def close(self) -> None:
        """Wait for what is on its way."""
        self._producer.flush(1.0)

    def _produce(self, source: Source, letter: DeadLetter, delivered: Any) -> None:
        key, value = dead_letter(source, letter, STAGE, self._encoder.encode, self._bytes_max)
        partition = source.partition % self._partitions
        while True:
            try:
                self._producer.produce(self._topic, value, key, partition, on_delivery=delivered)
                return
            except BufferError:
                self._producer.poll(0.1)
