"""A broker in memory under aiokafka's client: metadata, producer ids, and Kafka's rules for sequence numbers.

aiokafka's producer, accumulator and sender are the real ones above it.
"""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaConnectionError, NodeNotReadyError
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import InitProducerIdRequest
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.util import create_task

LATENCY_S = 0.001
SEQUENCES = 2**31
TOO_LARGE, OUT_OF_ORDER, INVALID_RECORD = 10, 45, 87
_PRODUCER_AT = 43


@dataclass
class FakeKafka:
    """`topics` has each partition's leader, 1 or −1 for none; `log` what was taken, by topic."""

    topics: dict[str, list[int]]
    away: bool = False
    refused: set[tuple[str, bytes]] = field(default_factory=set)
    """(topic, value): a batch with that value is too large."""
    log: dict[str, list[bytes]] = field(default_factory=dict)
    metadata_requests: int = 0
    largest_request: int = 0
    _next: dict[tuple[str, int], int] = field(default_factory=dict)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Be what every client of this process talks to."""
        monkeypatch.setattr(AIOKafkaClient, "bootstrap", lambda client: self._bootstrap(client))
        monkeypatch.setattr(
            AIOKafkaClient, "_metadata_update", lambda client, *args: self._update(*args)
        )
        monkeypatch.setattr(
            AIOKafkaClient, "send", lambda client, node, request, **_: self._send(request)
        )

    async def _bootstrap(self, client: Any) -> None:
        if self.away:
            raise KafkaConnectionError("away")
        client.cluster.update_metadata(self._metadata([]))
        client._sync_task = create_task(client._md_synchronizer())

    async def _update(self, cluster: Any, topics: Any) -> bool:
        self.metadata_requests += 1
        await asyncio.sleep(LATENCY_S)
        if not self.away:
            cluster.update_metadata(self._metadata(list(topics) or list(self.topics)))
        return not self.away

    def _metadata(self, names: list[str]) -> Any:
        found = [
            (0, name, False, [(0, p, lead, [1], [1]) for p, lead in enumerate(self.topics[name])])
            if name in self.topics
            else (3, name, False, [])
            for name in names
        ]
        brokers = [(1, "h", 1, None)]
        return SimpleNamespace(API_VERSION=1, brokers=brokers, controller_id=1, topics=found)

    async def _send(self, request: Any) -> Any:
        await asyncio.sleep(LATENCY_S)
        if self.away:
            raise NodeNotReadyError("away")
        if isinstance(request, InitProducerIdRequest):
            return SimpleNamespace(error_code=0, producer_id=7, producer_epoch=0)
        assert isinstance(request, ProduceRequest)
        batches = [(name, *one) for name, parts in request._topics for one in parts]
        self.largest_request = max(self.largest_request, sum(len(data) for *_, data in batches))
        answers = [(name, [(p, *self._take(name, p, data), -1)]) for name, p, data in batches]
        return SimpleNamespace(API_VERSION=3, topics=answers)

    def _take(self, topic: str, partition: int, data: bytes) -> tuple[int, int]:
        """(error code, offset)."""
        place = topic, partition
        _, _, sequence, count = struct.unpack_from(">qhii", data, _PRODUCER_AT)
        values = [record.value for record in DefaultRecordBatch(bytearray(data))]
        if sequence < 0:
            return INVALID_RECORD, -1
        if any((topic, value) in self.refused for value in values):
            return TOO_LARGE, -1
        # Of a producer that it knows nothing of, a broker takes any sequence number.
        if self._next.get(place, sequence) != sequence:
            return OUT_OF_ORDER, -1
        self._next[place] = (sequence + count) % SEQUENCES
        log = self.log.setdefault(topic, [])
        log += values
        return 0, len(log) - len(values)
