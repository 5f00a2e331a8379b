"""aiokafka's idempotent producer, and the four things about it that are not left as they are."""

from __future__ import annotations

import asyncio
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth

from routekeel.streams.app.faust_app import credentials
from routekeel.streams.app.record_batch import NO_PRODUCER, RecordBatch
from routekeel.streams.settings import KafkaSettings

METADATA_PAUSE_S = 0.1
SEQUENCE_MASK = 0x7FFFFFFF


class FinishedBatch(BatchBuilder):
    """What aiokafka sends instead of a batch that it has put together itself."""

    def __init__(self, batch: RecordBatch) -> None:
        # Not the base's, which would begin a batch of its own.
        self._batch = batch
        self._producer: tuple[int, int, int] = NO_PRODUCER
        self._encoded: bytes | None = None

    def _set_producer_state(
        self, producer_id: int, producer_epoch: int, base_sequence: int
    ) -> None:
        # After 2³¹ − 1 Kafka goes on with 0, aiokafka with −2³¹, which the broker refuses.
        self._producer = producer_id, producer_epoch, base_sequence & SEQUENCE_MASK

    def _build(self) -> bytes:
        if self._encoded is None:
            self._encoded = self._batch.encode(*self._producer)
        return self._encoded

    def close(self) -> None:
        """It is."""

    def closed(self) -> bool:
        """Always."""
        return True

    def size(self) -> int:
        """Bytes."""
        return len(self._build())

    def record_count(self) -> int:
        """Records."""
        return self._batch.count


def producer_options(kafka: KafkaSettings) -> dict[str, Any]:
    """What an idempotent AIOKafkaProducer needs. Raises ConfigurationError as `tls_context` does."""
    return {
        "bootstrap_servers": [server.strip() for server in kafka.bootstrap_servers.split(",")],
        "enable_idempotence": True,
        **credentials_to_aiokafka_auth(credentials(kafka)),
    }


def make_producer(options: dict[str, Any]) -> Any:
    """A producer, not connected; within its event loop. Raises ValueError for options that do not fit."""
    producer = AIOKafkaProducer(**options)
    # A batch that waited longer than this would be given up when its partition has no leader for a moment,
    # which is what a broker that starts again says first.
    producer._message_accumulator._batch_ttl = float("inf")
    client = producer.client
    ask, asked_at = client._metadata_update, float("-inf")

    async def ask_calmly(*arguments: Any) -> Any:
        # As long as a leader is unknown it is asked again at once.
        nonlocal asked_at
        loop = asyncio.get_running_loop()
        await asyncio.sleep(asked_at + METADATA_PAUSE_S - loop.time())
        asked_at = loop.time()
        return await ask(*arguments)

    client._metadata_update = ask_calmly
    return producer
