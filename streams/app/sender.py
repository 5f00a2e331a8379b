"""Hands a batch's outputs and dead letters to the producer, topic by topic and without waiting.

A full queue is the only thing it waits for; whether what was handed over arrives is asked at the next
checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Protocol

from routekeel.schemas.codec import Encoder
from routekeel.streams.app.metrics import WorkerMetrics
from routekeel.streams.settings import Settings
from routekeel.streams.topology.dead_letter import dead_letter
from routekeel.streams.topology.record_block import RecordBlock
from routekeel.streams.topology.records import BatchResult, Source


class Output(Protocol):
    """Where outputs and dead letters go (app/output.py)."""

    def send(self, topic: str, partition: int, block: RecordBlock) -> bool:
        """Hand records over; False, and nothing of it, when there is no room."""
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

    def close(self) -> None:
        """Give up what has not arrived."""
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

    async def send_all(self, source: Source, pieces: Iterator[BatchResult]) -> int:
        """`send` what a batch leads to bit by bit, as it is computed; how many records were applied."""
        started, step_s, applied = time.perf_counter(), 0.0, 0
        for result in pieces:
            step_s += time.perf_counter() - started
            self._metrics.count(result.counts)
            await self.send(source, result)
            applied += result.counts.records - result.counts.skipped
            started = time.perf_counter()
        self._metrics.step_s.observe(step_s)
        return applied

    async def send(self, source: Source, result: BatchResult) -> None:
        """Hand everything over, waiting for room where there is none. Raises what failed since."""
        topics, partition = self._topics, source.partition
        letters = [
            dead_letter(
                source, letter, "worker", self._encode_dead_letter.encode, topics.record_bytes_max
            )
            for letter in result.dead_letters
        ]
        blocks = {
            "telemetry": result.outputs.telemetry(),
            "weights": result.outputs.weights(),
            "dlq": RecordBlock.of([key for key, _ in letters], [value for _, value in letters]),
        }
        for name, block in blocks.items():
            while not self._output.send(getattr(topics, name), partition, block):
                await self._output.room()
            self._metrics.output_bytes.inc(int(block.sizes.sum()))
            self._metrics.outputs.labels(name).inc(len(block))
        self._output.poll()
