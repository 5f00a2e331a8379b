"""A stock Faust agent with a table, as its documentation shows it: one event at a time."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import faust
import numpy as np

from tests.bench.one_event import PerEvent
from tests.bench.records import HandWritten

from .task import Stopwatch, Task, report


def run(task: Task) -> None:
    """Run the agent until all events are through and their records acknowledged."""
    settings, topics = task.settings, task.settings.topics
    per_event = PerEvent(HandWritten(settings), task.steps, task.layers, task.experts)
    watch = Stopwatch()
    app = faust.App(
        task.tag,
        broker=f"kafka://{settings.kafka.bootstrap_servers}",
        store="memory://",
        datadir=task.folder,
        web_enabled=False,
        topic_partitions=topics.partitions,
        topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
        producer_max_request_size=topics.record_bytes_max,
    )

    def topic(name: str) -> Any:
        return app.topic(name, key_type=bytes, value_type=bytes, value_serializer="raw")

    source, telemetry_topic, weights_topic = map(
        topic, (topics.logits, topics.telemetry, topics.weights)
    )
    table = app.Table("states", key_type=bytes, value_type=bytes, partitions=topics.partitions)
    finished = asyncio.Event()
    # The last record sent to each output partition: once it is acknowledged, all before it are.
    last: dict[tuple[str, int], Any] = {}
    seen = 0

    @app.agent(source)
    async def route(stream: Any) -> None:
        nonlocal seen
        async for event in stream.events():
            if not watch.running:
                watch.start()
            key, message = event.key, event.message
            old = table.get(key)
            state = None
            if old is not None:
                state = np.frombuffer(bytearray(old), "<f4").reshape(task.layers, -1)
            state, telemetry, weights = per_event.apply(
                event.value, message.partition, message.offset, state
            )
            table[key] = state.tobytes()
            partition = message.partition
            last[topics.telemetry, partition] = await telemetry_topic.send(
                key=key, value=telemetry, partition=partition
            )
            if weights is not None:
                last[topics.weights, partition] = await weights_topic.send(
                    key=key, value=weights, partition=partition
                )
            seen += 1
            if seen >= task.events:
                finished.set()

    async def work() -> None:
        await app.start()
        await finished.wait()
        await app.producer.flush()
        await asyncio.gather(*last.values())
        report(seen, *watch.read())
        os._exit(0)  # what Faust still has to stop is not measured

    app.finalize()
    asyncio.run(work())
