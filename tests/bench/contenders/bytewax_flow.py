"""Bytewax: stateful_map with recovery, the state being snapshotted to SQLite at the end of every epoch.

As its documentation advises: its own Kafka connectors and its default epoch. Items that need no
state of their own pass as batches, and both outputs go through one sink, which flushes per batch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bytewax.operators as op
from bytewax._bytewax import cli_main
from bytewax.connectors.kafka import KafkaSink, KafkaSinkMessage, KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir

from tests.bench.one_event import PerEvent
from tests.bench.records import HandWritten

from .task import Stopwatch, Task, report


def run(task: Task) -> None:
    """Run the flow to the end of the topic: its last epoch and snapshot included."""
    settings, topics = task.settings, task.settings.topics
    watch = Stopwatch()
    per_event = PerEvent(HandWritten(settings), task.steps, task.layers, task.experts)
    brokers = settings.kafka.bootstrap_servers.split(",")
    seen = 0

    def keyed(messages: list[Any]) -> list[tuple[str, Any]]:
        if messages and not watch.running:
            watch.start()
        return [(message.key.decode(), message) for message in messages]

    def route(state: Any | None, message: Any) -> tuple[Any, tuple[bytes, bytes, bytes | None]]:
        nonlocal seen
        seen += 1
        state, telemetry, weights = per_event.apply(
            message.value, message.partition, message.offset, state
        )
        return state, (message.key, telemetry, weights)

    def records(routed: list[tuple[str, tuple[bytes, bytes, bytes | None]]]) -> list[Any]:
        made = []
        for _, (key, telemetry, weights) in routed:
            made.append(KafkaSinkMessage(key, telemetry, topic=topics.telemetry))
            if weights is not None:
                made.append(KafkaSinkMessage(key, weights, topic=topics.weights))
        return made

    flow = Dataflow("routes")
    consumer = {key: str(value) for key, value in task.consumer_config().items()}
    source = KafkaSource(brokers, [topics.logits], tail=False, add_config=consumer)
    producer = {key: str(value) for key, value in task.producer_config().items()}
    # Keys to partitions as every other contender does it, so that a session stays in one number.
    sink = KafkaSink(brokers, None, add_config={**producer, "partitioner": "murmur2_random"})
    stream = op.input("logits", flow, source)
    routed = op.stateful_map("route", op.flat_map_batch("key", stream, keyed), route)
    op.output("outputs", op.flat_map_batch("records", routed, records), sink)
    folder = Path(task.folder)
    init_db_dir(folder, 1)
    cli_main(flow, recovery_config=RecoveryConfig(folder))
    report(seen, *watch.read())
