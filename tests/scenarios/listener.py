"""A worker without its topology: takes what Faust gives it and keeps to the worker's rule of offsets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from routekeel.streams.app.transport import TP
from tests.scenarios.edges import LIMIT_S, Group, Member


class Batch(NamedTuple):
    """A partition's records as they came."""

    partition: int
    offsets: list[int]
    values: list[bytes]


class Listener:
    """Attached to a member's Faust as StreamWorker is. Batches wait until somebody takes them."""

    def __init__(self, group: Group, name: str = "", journal: list[Any] | None = None) -> None:
        self.group, self.name = group, name
        self.journal: list[Any] = [] if journal is None else journal
        """(name, "revoked" or "given up" or "assigned", partitions), of all who share it."""
        self.durable: dict[int, int] = {}
        self.assigned: set[int] = set()
        self.has_assignment = asyncio.Event()
        self._batches: asyncio.Queue[Batch] = asyncio.Queue(1)
        self.member: Member = group.member(self.durable.get)
        self.app = self.member.app
        topic = self.app.topic(group.topic, key_type=None, value_type=None, value_serializer="raw")
        self.app.agent(topic, name="scenario", concurrency=1)(self._consume)
        self.app.on_partitions_assigned.connect(self._assigned)
        self.app.on_partitions_revoked.connect(self._revoked)

    async def _consume(self, stream: AsyncIterator[Any]) -> None:
        async for event in stream.events():  # type: ignore[attr-defined]
            tp, records = event.message.tp, event.message.value
            batch = Batch(tp.partition, [r.offset for r in records], [r.value for r in records])
            await self._batches.put(batch)

    async def _revoked(self, app: Any, revoked: set[Any], **_: Any) -> None:
        partitions = self._mine(revoked)
        self.journal.append((self.name, "revoked", partitions))
        await asyncio.sleep(0.05)  # a last checkpoint takes a while
        self.assigned -= partitions
        self.journal.append((self.name, "given up", partitions))

    async def _assigned(self, app: Any, assigned: set[Any], **_: Any) -> None:
        self.assigned = self._mine(assigned)
        self.journal.append((self.name, "assigned", set(self.assigned)))
        self.has_assignment.set()

    def _mine(self, tps: set[Any]) -> set[int]:
        return {tp.partition for tp in tps if tp.topic == self.group.topic}

    async def next(self, partition: int | None = None) -> Batch:
        """The next batch, of this partition or of any."""
        async with asyncio.timeout(LIMIT_S):
            while True:
                batch = await self._batches.get()
                if partition in (None, batch.partition):
                    return batch

    async def read(self, partition: int, first: int, end: int) -> list[bytes]:
        """The values from `first` until `end`, by the worker's rule: what is old is skipped, and what
        does not follow is read again from the right place."""
        values: list[bytes] = []
        while first + len(values) < end:
            batch = await self.next(partition)
            expected = first + len(values)
            if batch.offsets[0] > expected:
                await self.seek(partition, expected)
            else:
                values += batch.values[expected - batch.offsets[0] :]
        return values

    def tp(self, partition: int) -> Any:
        """Faust's name of the partition."""
        return TP(self.group.topic, partition)

    async def seek(self, partition: int, offset: int) -> None:
        await self.app.consumer.seek(self.tp(partition), offset)

    async def position(self, partition: int) -> int | None:
        position: int | None = await self.app.consumer.position(self.tp(partition))
        return position

    async def earliest(self, partition: int) -> int | None:
        found = await self.app.consumer.earliest_offsets(self.tp(partition))
        earliest: int | None = found[self.tp(partition)]
        return earliest


@asynccontextmanager
async def joined(listener: Listener) -> AsyncIterator[Listener]:
    """In the group until the end of the block."""
    async with asyncio.timeout(LIMIT_S):
        await listener.member.start()
        await listener.has_assignment.wait()
    try:
        yield listener
    finally:
        await listener.member.stop()


async def until(condition: Callable[[], bool]) -> None:
    """Until something is true that callbacks make true."""
    async with asyncio.timeout(LIMIT_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
