"""Quix Streams: a StreamingDataFrame with a stateful apply, its state in RocksDB and a changelog topic.

As its documentation advises: state per key in bytes, at-least-once, its own commit interval; one
chain without branches, which would copy the values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from quixstreams import Application, message_context
from quixstreams.models.serializers.base import Serializer

from tests.bench.one_event import PerEvent
from tests.bench.records import HandWritten

from .task import Stopwatch, Task, report


class Part(Serializer):
    """Takes one of the two outputs, which are bytes already."""

    def __init__(self, index: int) -> None:
        self._index = index

    def __call__(self, value: tuple[bytes, bytes | None], ctx: Any) -> bytes | None:
        """The bytes to produce."""
        return value[self._index]


def run(task: Task) -> None:
    """Run the application until it has processed all events and committed its last checkpoint."""
    settings, topics = task.settings, task.settings.topics
    watch = Stopwatch()
    per_event = PerEvent(HandWritten(settings), task.steps, task.layers, task.experts)
    seen = 0

    def processed(topic: str, partition: int, offset: int) -> None:
        nonlocal seen
        seen += 1
        if seen >= task.events:
            time_last_checkpoint(app, watch, finished)
            app.stop()

    finished: list[tuple[float, float]] = []
    app = Application(
        broker_address=settings.kafka.bootstrap_servers,
        consumer_group=task.tag,
        auto_offset_reset="earliest",
        state_dir=task.folder,
        use_changelog_topics=True,
        consumer_extra_config=task.consumer_config(),
        producer_extra_config=task.producer_config(),
        on_message_processed=processed,
        loglevel="WARNING",
    )
    source = app.topic(topics.logits, value_deserializer="bytes")
    telemetry = app.topic(topics.telemetry, value_serializer=Part(0))
    weights = app.topic(topics.weights, value_serializer=Part(1))

    def route(value: bytes, state: Any) -> tuple[bytes, bytes | None]:
        if not watch.running:
            watch.start()
        at = message_context()
        old = state.get_bytes("state")
        matrix = None
        if old is not None:
            # A copy: what the store gives out cannot be written to.
            matrix = np.frombuffer(bytearray(old), "<f4").reshape(task.layers, -1)
        matrix, first, second = per_event.apply(value, at.partition, at.offset, matrix)
        state.set_bytes("state", matrix.tobytes())
        return first, second

    frame = app.dataframe(source).apply(route, stateful=True)
    frame = frame.to_topic(telemetry)
    frame = frame.filter(lambda value: value[1] is not None)
    frame.to_topic(weights)
    app.run()
    report(seen, *finished[0])


def time_last_checkpoint(
    app: Application, watch: Stopwatch, finished: list[tuple[float, float]]
) -> None:
    """Read the stopwatch after the checkpoint at the end; what closing takes is not measured."""
    context = app._processing_context
    commit = context.commit_checkpoint

    def timed(force: bool = False, revoking: bool = False) -> None:
        commit(force=force, revoking=revoking)
        if force and not finished:
            finished.append(watch.read())

    context.commit_checkpoint = timed
