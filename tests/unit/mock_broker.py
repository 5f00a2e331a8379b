"""librdkafka's own mock cluster and a broker that never answers, for tests of the real client code.

The mock cluster drops old messages under load, so tests read small numbers back.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from confluent_kafka import Consumer, Message, TopicPartition
from confluent_kafka import Producer as KafkaProducer

from routekeel.schemas.codec import Decoder
from routekeel.schemas.records import ROUTER_LOGITS
from routekeel.schemas.registry import FixedSchemaIds


class MockKafka:
    """One mock broker; it lives as long as its owner."""

    def __init__(self) -> None:
        self._owner = KafkaProducer(
            {"bootstrap.servers": "mock:1", "test.mock.num.brokers": 1, "log_level": 0}
        )
        broker = next(iter(self._owner.list_topics(timeout=10).brokers.values()))
        self.servers = f"{broker.host}:{broker.port}"

    def messages(self, topic: str, count: int, timeout_s: float = 20.0) -> list[Message]:
        """The first `count` messages of a topic, in order within each partition.

        They must have been delivered: a reader that comes before the first one stays without.
        """
        settings = {"bootstrap.servers": self.servers, "group.id": "unused", "log_level": 0}
        consumer = Consumer({**settings, "auto.offset.reset": "earliest"})
        try:
            partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
            consumer.assign([TopicPartition(topic, p, 0) for p in partitions])
            found: list[Message] = []
            deadline = time.monotonic() + timeout_s
            while len(found) < count:
                assert time.monotonic() < deadline, f"{len(found)} of {count} messages came"
                found += [m for m in consumer.consume(count - len(found), 0.5) if not m.error()]
            return found
        finally:
            consumer.close()

    def close(self) -> None:
        """End the mock cluster."""
        self._owner.close()


def fixed_ids() -> tuple[FixedSchemaIds, int]:
    """A registry in memory and the id of RouterLogits in it."""
    ids = FixedSchemaIds()
    return ids, ids.register(ROUTER_LOGITS, "routekeel.logits-value")


def decoded(messages: list[Message]) -> list[dict[str, Any]]:
    """The records of messages of the logits topic."""
    decoder = Decoder(ROUTER_LOGITS, fixed_ids()[0])
    return [decoder.decode(message.value()) for message in messages]


@contextmanager
def hanging_broker() -> Iterator[str]:
    """The address of a broker that takes connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def closed_port() -> Iterator[str]:
    """An address where nothing listens, and nothing will while this lasts."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{holder.getsockname()[1]}"
