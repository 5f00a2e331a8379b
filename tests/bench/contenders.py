"""The contenders, each run in a process of its own: this app, a plain loop, a stock Faust agent.

`python -m tests.bench.contenders NAME` with the settings in ROUTEKEEL_* variables prints one JSON
line: events, seconds and CPU seconds from the first event to the last durable output.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from typing import Any

from routekeel.streams.settings import Settings, load_settings

from .records import HandWritten


def report(events: int, seconds: float, cpu_s: float) -> None:
    """Print the result the parent reads."""
    print(json.dumps({"events": events, "seconds": seconds, "cpu_s": cpu_s}), flush=True)


def routekeel(settings: Settings, events: int) -> None:
    """This app with its changelog."""
    from routekeel.streams.app.run import run_worker

    result = run_worker(settings, until_idle_s=2.0)
    report(result.records, result.busy_s, result.busy_cpu_s)


def loop(settings: Settings, events: int) -> None:
    """confluent-kafka and fastavro in a loop, states in a dict, no state log."""
    from confluent_kafka import Consumer, Producer

    work = HandWritten(settings)
    consumer = Consumer(
        settings.kafka.client_config()
        | {
            "group.id": f"loop-{os.getpid()}",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "queued.max.messages.kbytes": 262_144,
            "fetch.message.max.bytes": 8 * 2**20,
        }
    )
    producer = Producer(
        settings.kafka.client_config()
        | {
            "linger.ms": 5,
            "compression.type": "lz4",
            "enable.idempotence": True,
            "queue.buffering.max.messages": 2_000_000,
        }
    )
    consumer.subscribe([settings.topics.logits])
    states: dict[str, Any] = {}
    done, started, cpu = 0, 0.0, 0.0
    while done < events:
        messages = consumer.consume(5000, timeout=0.2)
        if not messages:
            continue
        if not started:
            started, cpu = time.monotonic(), time.process_time()
        decoded = [work.decode(m.value()) for m in messages]
        first: dict[str, int] = {}
        gathered: list[Any] = []
        free = 0
        for event in decoded:
            session = event["session_id"]
            if session not in first:
                first[session] = free
                gathered.append(states[session] if session in states else work.fresh(event))
                free += len(event["layers"])
        arena, output, batch = work.step(
            decoded, gathered, [first[e["session_id"]] for e in decoded]
        )
        for session, slot in first.items():
            states[session] = arena[slot : slot + len(gathered[0])].copy()
        for i, (message, event) in enumerate(zip(messages, decoded, strict=True)):
            partition, key = message.partition(), message.key()
            telemetry, weights = work.outputs(
                event, partition, message.offset(), output, i, int(batch.slot_start[i])
            )
            for topic, value in (
                (settings.topics.telemetry, telemetry),
                (settings.topics.weights, weights),
            ):
                while True:
                    try:
                        producer.produce(topic, value, key, partition)
                        break
                    except BufferError:
                        producer.poll(0.05)
        producer.poll(0)
        done += len(messages)
    producer.flush()
    consumer.commit(asynchronous=False)
    report(done, time.monotonic() - started, time.process_time() - cpu)
    consumer.close()


def faust(settings: Settings, events: int) -> None:
    """A stock Faust agent with a table, as its documentation shows it."""
    import faust as library

    work = HandWritten(settings)
    app = library.App(
        f"stock-faust-{os.getpid()}",
        broker=f"kafka://{settings.kafka.bootstrap_servers}",
        store="memory://",
        web_enabled=False,
        topic_partitions=settings.topics.partitions,
        topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
    )
    source = app.topic(
        settings.topics.logits, key_type=bytes, value_type=bytes, value_serializer="raw"
    )
    telemetry_topic = app.topic(
        settings.topics.telemetry, key_type=bytes, value_type=bytes, value_serializer="raw"
    )
    weights_topic = app.topic(
        settings.topics.weights, key_type=bytes, value_type=bytes, value_serializer="raw"
    )
    table = app.Table(
        "states", key_type=bytes, value_type=bytes, partitions=settings.topics.partitions
    )
    finished = asyncio.Event()
    seen = {"events": 0, "started": 0.0, "cpu": 0.0}

    @app.agent(source)
    async def route(stream: Any) -> None:
        import numpy as np

        from routekeel.operators.state import state_width

        async for event in stream.events():
            if not seen["events"]:
                seen["started"], seen["cpu"] = time.monotonic(), time.process_time()
            decoded = work.decode(event.value)
            old = table.get(event.key)
            state = work.fresh(decoded) if old is None else np.frombuffer(old, "<f4").reshape(
                -1, state_width(decoded["experts"])
            )  # fmt: skip
            arena, output, _ = work.step([decoded], [state], [0])
            table[event.key] = arena.tobytes()
            message = event.message
            telemetry, weights = work.outputs(
                decoded, message.partition, message.offset, output, 0, 0
            )
            await telemetry_topic.send(key=event.key, value=telemetry, partition=message.partition)
            await weights_topic.send(key=event.key, value=weights, partition=message.partition)
            seen["events"] += 1
            if seen["events"] >= events:
                finished.set()

    async def run() -> None:
        await app.start()
        await finished.wait()
        await app.producer.flush()
        report(
            int(seen["events"]),
            time.monotonic() - seen["started"],
            time.process_time() - seen["cpu"],
        )
        os._exit(0)  # what Faust still has to stop is not measured

    app.finalize()
    asyncio.run(run())


def main() -> None:
    """Run the contender that the first argument names, over as many events as the second says."""
    name, events = sys.argv[1], int(sys.argv[2])
    {"routekeel": routekeel, "loop": loop, "faust": faust}[name](load_settings().settings, events)


if __name__ == "__main__":
    main()
