"""Sends records that the sink refuses to the dead letters, whole, and waits until they are durable."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer

from routekeel.schemas.codec import Encoder
from routekeel.streams.settings import Settings
from routekeel.streams.sinks.outcomes import Done, Failed, Outcome
from routekeel.streams.topology.dead_letter import dead_letter_fields
from routekeel.streams.topology.records import DeadLetter, Source

DELIVERY_TIMEOUT_S: Final = 30.0
STAGE: Final = "sink"


class LetterProducer:
    """Publishes dead letters to the partition that their record has in its own topic."""

    def __init__(self, settings: Settings, encoder: Encoder, partitions: int) -> None:
        self._topic = settings.topics.dlq
        self._partitions = partitions
        self._encoder = encoder
        self._one = threading.Lock()
        self._producer = Producer(
            settings.kafka.client_config()
            | {
                "enable.idempotence": True,
                "compression.type": "lz4",
                "linger.ms": 5,
                "message.max.bytes": settings.topics.record_bytes_max,
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
        fields = dead_letter_fields(source, letter, STAGE)
        while True:
            value = self._encoder.encode(fields)
            try:
                partition = source.partition % self._partitions
                key = letter.record.key
                self._producer.produce(self._topic, value, key, partition, on_delivery=delivered)
                return
            except BufferError:
                self._producer.poll(0.1)
            except KafkaException as error:
                too_large = error.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE
                if not too_large or fields["value"] is None:
                    raise
                # With its envelope it exceeds what a topic takes; the original stays in its log.
                fields["value"] = None
                fields["error_message"] += " (the value is too large for the dead letters)"
