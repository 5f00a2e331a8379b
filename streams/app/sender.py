"""Hands a batch's outputs and dead letters to the producer, record by record and without waiting.

A full queue is the only thing it waits for; whether what was handed over arrives is asked at the next
checkpoint.
"""

from __future__ import annotations

from typing import Protocol

from routekeel.schemas.codec import Encoder
from routekeel.streams.app.metrics import WorkerMetrics
from routekeel.streams.settings import Settings
from routekeel.streams.topology.dead_letter import dead_letter
from routekeel.streams.topology.records import BatchResult, Source


class Output(Protocol):
    """Where outputs and dead letters go (app/output.py)."""

    def send(self, topic: str, partition: int, key: bytes | None, value: bytes) -> bool:
        """Hand one record over; False when there is no room."""
        ...

    async def room(self) -> None:
        """Wait for room."""
        ...

    async def durable(self) -> None:
        """Wait until everything handed over is acknowledged."""
        ...

    def poll(self) -> None:
        """Raise what failed since."""
        ...


class Sender:
    """Sends what a batch led to, and counts it."""

    def __init__(
        self,
        settings: Settings,
        output: Output,
        encode_dead_letter: Encoder,
        metrics: WorkerMetrics,
    ) -> None:
        self._topics = settings.topics
        self._output = output
        self._encode_dead_letter = encode_dead_letter
        self._metrics = metrics

    async def send(self, source: Source, result: BatchResult) -> None:
        """Hand everything over, waiting for room where there is none. Raises what failed since."""
        topics, partition = self._topics, source.partition
        sent_weights = sent_bytes = 0
        for _, key, telemetry, weights in result.outputs:
            sent_bytes += len(telemetry)
            if not self._output.send(topics.telemetry, partition, key, telemetry):
                await self._wait_and_send(topics.telemetry, partition, key, telemetry)
            if weights is not None:
                sent_weights += 1
                sent_bytes += len(weights)
                if not self._output.send(topics.weights, partition, key, weights):
                    await self._wait_and_send(topics.weights, partition, key, weights)
        for letter in result.dead_letters:
            letter_key, value = dead_letter(
                source,
                letter,
                "worker",
                self._encode_dead_letter.encode,
                topics.record_bytes_max,
            )
            sent_bytes += len(value)
            if not self._output.send(topics.dlq, partition, letter_key, value):
                await self._wait_and_send(topics.dlq, partition, letter_key, value)
        self._output.poll()
        self._metrics.output_bytes.inc(sent_bytes)
        self._metrics.outputs.labels("telemetry").inc(len(result.outputs))
        self._metrics.outputs.labels("weights").inc(sent_weights)
        self._metrics.outputs.labels("dlq").inc(len(result.dead_letters))

    async def _wait_and_send(
        self, topic: str, partition: int, key: bytes | None, value: bytes
    ) -> None:
        await self._output.room()
        while not self._output.send(topic, partition, key, value):
            await self._output.room()
