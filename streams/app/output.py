"""Sends outputs and dead letters; knows when all of them are durable.

librdkafka's own threads batch, compress and send, so the event loop only pays for handing over. What
was handed over may still be in flight when the next batch is applied: only a checkpoint has to wait.
"""

from __future__ import annotations

import asyncio

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from routekeel.streams.settings import Settings

QUEUE_BYTES_MAX = 256 * 2**20
QUEUE_RECORDS_MAX = 2_000_000
FLUSH_STEP_S = 1.0


class OutputProducer:
    """An idempotent producer whose failures surface at the next call."""

    def __init__(self, settings: Settings) -> None:
        self._failure: KafkaError | None = None
        self._producer = Producer(
            settings.kafka.client_config()
            | {
                "enable.idempotence": True,
                # No record may be given up alone while later ones still arrive: the sink would take it for a
                # repeat when it comes again. A broker that is away is waited for.
                "message.timeout.ms": 0,
                "linger.ms": settings.worker.linger_ms,
                "compression.type": "lz4",
                "message.max.bytes": settings.topics.record_bytes_max,
                "queue.buffering.max.messages": QUEUE_RECORDS_MAX,
                "queue.buffering.max.kbytes": QUEUE_BYTES_MAX // 1024,
                "delivery.report.only.error": True,
                "on_delivery": self._delivered,
                "error_cb": self._error,
            }
        )

    def send(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes,
    ) -> bool:
        """Hand one record over; False when the queue is full. Raises KafkaException after a failure."""
        try:
            self._producer.produce(topic, value, key, partition)
        except BufferError:
            return False
        return True

    async def room(self) -> None:
        """Wait until the queue has drained enough to go on."""
        await asyncio.get_running_loop().run_in_executor(None, self._producer.poll, 0.05)
        self._raise()

    async def durable(self) -> None:
        """Wait until everything handed over is acknowledged. Raises KafkaException when something failed."""
        loop = asyncio.get_running_loop()
        while await loop.run_in_executor(None, self._producer.flush, FLUSH_STEP_S):
            self._raise()
        self._raise()

    def poll(self) -> None:
        """Serve callbacks, cheaply; raises what they reported."""
        self._producer.poll(0)
        self._raise()

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failure = error

    def _error(self, error: KafkaError) -> None:
        if error.fatal():
            self._failure = error

    def _raise(self) -> None:
        if self._failure is not None:
            raise KafkaException(self._failure)
