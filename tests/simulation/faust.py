"""As much of Faust as a worker uses: a member of the group that fetches, seeks and commits.

Its bad habits are Faust's: what was fetched before a seek or a rebalance may be delivered after it,
and a fetched batch may be dropped on the way (rule 6).
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

from aiokafka.errors import IllegalStateError

from routekeel.streams.errors import ConfigurationError
from tests.simulation.broker import Broker
from tests.simulation.turns import Process

QUEUE_MAX = 6


class TP(NamedTuple):
    """Faust's name of a topic partition."""

    topic: str
    partition: int


class FetchedRecord(NamedTuple):
    """A record as the fetcher gives it."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Any


class SimFaust:
    """One member of the group. `rebalancing` from when it gives up its partitions until it has new ones."""

    def __init__(
        self,
        process: Process,
        broker: Broker,
        topic: str,
        rng: random.Random,
        gap: float = 0.0,
        repeat: float = 0.0,
    ) -> None:
        self._process, self._broker, self._topic, self._rng = process, broker, topic, rng
        self._gap, self._repeat = gap, repeat
        self.assigned: set[int] = set()
        self.standby: set[TP] = set()
        self.rebalancing = False
        self._positions: dict[int, int] = {}
        self._queue: deque[tuple[int, list[FetchedRecord]]] = deque()
        self._handled: set[int] = set()
        self._one_at_a_time = asyncio.Lock()
        self.consumer = self
        self.on_partitions_assigned = SimpleNamespace(connect=self._connect("assigned"))
        self.on_partitions_revoked = SimpleNamespace(connect=self._connect("revoked"))
        self._callbacks: dict[str, Callable[..., Any]] = {}
        self._consume: Callable[..., Any] | None = None
        self.assignor = SimpleNamespace(assigned_standbys=lambda: self.standby)

    def _connect(self, name: str) -> Callable[[Any], None]:
        return lambda callback: self._callbacks.__setitem__(name, callback)

    def topic(self, *_: Any, **__: Any) -> None: ...

    def agent(self, *_: Any, **__: Any) -> Callable[[Any], None]:
        return lambda function: setattr(self, "_consume", function)

    async def seek(self, tp: TP, offset: int) -> None:
        await self._process.turn(f"seek {tp.partition} to {offset}")
        self._check(tp)
        self._positions[tp.partition] = offset

    async def position(self, tp: TP) -> int | None:
        await self._process.turn("position")
        self._check(tp)
        return self._positions[tp.partition]

    def _check(self, tp: TP) -> None:
        if tp.partition not in self._positions:
            raise IllegalStateError(tp)

    async def earliest_offsets(self, tp: TP) -> dict[TP, int]:
        await self._process.turn("earliest offsets")
        return {tp: self._broker.log_starts[tp.partition]}

    def start(self) -> None:
        """Run the agent and the fetcher."""
        assert self._consume is not None
        self._process.spawn(self._consume(SimpleNamespace(events=self._stream)))
        self._process.spawn(self._fetch())

    async def _stream(self) -> AsyncIterator[Any]:
        while True:
            await self._process.turn("next batch")
            if self._queue:
                partition, records = self._queue.popleft()
                tp = TP(self._topic, partition)
                yield SimpleNamespace(message=SimpleNamespace(tp=tp, value=records))
                self._handled.add(partition)

    async def _fetch(self) -> None:
        rng = self._rng
        while True:
            await self._process.turn("fetch")
            if self.rebalancing or not self.assigned or len(self._queue) >= QUEUE_MAX:
                continue
            partition = rng.choice(sorted(self.assigned))
            position = self._positions[partition]
            if rng.random() < self._repeat:
                position = rng.randint(0, position)
            position = max(position, self._broker.log_starts[partition])
            records = self._broker.logs[partition][position : position + rng.randint(1, 12)]
            if not records:
                continue
            self._positions[partition] = records[-1].offset + 1
            if rng.random() < self._gap:
                continue  # fetched and dropped on the way: rule 6
            self._queue.append((partition, [FetchedRecord(*record) for record in records]))

    async def revoke(self) -> None:
        """Give up everything."""
        self.rebalancing = True
        async with self._one_at_a_time:
            gone = {TP(self._topic, p) for p in self.assigned}
            await self._callbacks["revoked"](self, gone)
            self.assigned = set()

    async def assign(self, partitions: set[int], keep_queue: bool) -> None:
        """Take the new assignment; with `keep_queue` what was fetched before is delivered after it."""
        async with self._one_at_a_time:
            if not keep_queue:
                self._queue.clear()
            starts = self._broker.log_starts
            self._positions = {p: self._broker.committed.get(p, starts[p]) for p in partitions}
            self.assigned, self._handled = partitions, set()
            everything = {TP(self._topic, p) for p in range(self._broker.partitions)}
            taken = {tp for tp in everything if tp.partition in partitions}
            self.standby = everything - taken
            await self._callbacks["assigned"](self, taken)
            await self._process.turn("begin to read")
            # Faust's own recovery comes to its end: a seek that was made before is undone.
            committed = self._broker.committed
            self._positions.update({p: committed[p] for p in partitions if p in committed})
        self.rebalancing = False

    def commit(self, committable: Callable[[int], int | None]) -> None:
        """What Faust commits now and then; the group takes it from members only.

        Of partitions that something was handled of since the assignment, and never backwards.
        """
        for partition in self.assigned & self._handled:
            offset = committable(partition)
            if offset is not None and offset > self._broker.committed.get(partition, 0):
                self._broker.committed[partition] = offset


async def topic_id(process: Process, broker: Broker, topic: str) -> str:
    """What app/run.py's current_topic_id says. Raises ConfigurationError where there is no topic."""
    await process.turn("describe the topic")
    if broker.topic_id is None:
        raise ConfigurationError(f"topic {topic} does not exist")
    return broker.topic_id
