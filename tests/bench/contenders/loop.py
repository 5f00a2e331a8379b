"""confluent-kafka and fastavro in a loop, states in a dict, no state log: nothing survives a crash."""

from __future__ import annotations

from typing import Any

import numpy as np
from confluent_kafka import Consumer, Producer

from routekeel.operators.config import DEFAULT
from routekeel.operators.contract import BatchOutput, ChunkBatch
from routekeel.operators.step import step_many
from tests.bench.one_event import OneEvent
from tests.bench.records import Event, HandWritten

from .task import Stopwatch, Task, report

BATCH = 5000
BATCH_BYTES = 16 * 2**20  # of large events fewer, or their outputs fall out of every cache


class Loop:
    """The sessions' states and what is done to them, a batch at a time."""

    def __init__(self, task: Task) -> None:
        self.work = HandWritten(task.settings)
        self._states: dict[str, Any] = {}

    def step(self, events: list[Event]) -> tuple[BatchOutput, list[bool]]:
        """Run the kernel over events of one shape; also whether each is its session's first."""
        one = events[0]
        tokens, layers, count = one["steps"], len(one["layers"]), len(events)
        states, work = self._states, self.work
        slot_of: dict[str, int] = {}
        gathered: list[Any] = []
        first: list[bool] = []
        for event in events:
            session = event["session_id"]
            known = session in states
            if session not in slot_of:
                slot_of[session] = layers * len(gathered)
                gathered.append(states[session] if known else work.fresh(event))
                first.append(not known)
            else:
                first.append(False)
        starts = np.array([slot_of[event["session_id"]] for event in events])
        logits, ambiguity = work.inputs(events)
        batch = ChunkBatch.build(
            logits,
            np.full(count, tokens),
            np.full(count, layers),
            (starts[:, None] + np.arange(layers)).reshape(-1),
            top_k=one["top_k"],
            ambiguity=ambiguity,
        )
        arena = np.concatenate(gathered)
        _, output = step_many(DEFAULT, arena, batch, out=arena)
        for session, slot in slot_of.items():
            states[session] = arena[slot : slot + layers].copy()
        return output, first


def run(task: Task) -> None:
    """Consume, decode, step, encode, produce until all events are done; then flush and commit."""
    settings, topics = task.settings, task.settings.topics
    loop, watch = Loop(task), Stopwatch()
    OneEvent(task.steps, task.layers, task.experts, top_k=2)  # loads the kernel
    consumer = Consumer(
        settings.kafka.client_config()
        | task.consumer_config()
        | {"group.id": task.tag, "auto.offset.reset": "earliest", "enable.auto.commit": False}
    )
    producer = Producer(settings.kafka.client_config() | task.producer_config())
    consumer.subscribe([topics.logits])

    def send(topic: str, value: bytes, key: bytes, partition: int) -> None:
        while True:
            try:
                producer.produce(topic, value, key, partition)
                return
            except BufferError:
                producer.poll(0.05)

    size = 2 * task.steps * task.layers * task.experts
    many = max(1, min(BATCH, BATCH_BYTES // size))
    done = 0
    while done < task.events:
        messages = consumer.consume(many, timeout=0.2)
        if not messages:
            continue
        if not watch.running:
            watch.start()
        events = [loop.work.decode(message.value()) for message in messages]
        output, first = loop.step(events)
        outputs = loop.work.outputs(output, task.layers)
        for i, message in enumerate(messages):
            partition, key = message.partition(), message.key()
            telemetry, weights = outputs.records(
                i, events[i], partition, message.offset(), first[i]
            )
            send(topics.telemetry, telemetry, key, partition)
            if weights is not None:
                send(topics.weights, weights, key, partition)
        producer.poll(0)
        done += len(messages)
    producer.flush()
    consumer.commit(asynchronous=False)
    report(done, *watch.read())
    consumer.close()
