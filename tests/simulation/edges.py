"""What a simulated worker process touches: a producer, a state log, and as much of Faust as it uses."""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

from routekeel.streams.topology.changelog import ChangelogRecord
from routekeel.streams.topology.changelog_reader import ChangelogReader
from tests.simulation.broker import Broker
from tests.simulation.turns import Process

if TYPE_CHECKING:
    from tests.simulation.member import Member

BUFFER_MAX = 40


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


class SimOutput:
    """The producer: records wait in the client and reach the broker some time, in order."""

    def __init__(self, process: Process, broker: Broker, rng: random.Random) -> None:
        self._process, self._broker, self._rng = process, broker, rng
        self.buffered: deque[tuple[str, int, bytes | None, bytes]] = deque()
        self.error_share = 0.0

    def send(self, topic: str, partition: int, key: bytes | None, value: bytes) -> bool:
        if len(self.buffered) >= BUFFER_MAX:
            return False
        self.buffered.append((topic, partition, key, value))
        return True

    def deliver(self, count: int) -> None:
        """So many arrive."""
        for _ in range(min(count, len(self.buffered))):
            self._broker.append_output(*self.buffered.popleft())

    def poll(self) -> None:
        self.deliver(self._rng.randint(0, 2))

    async def room(self) -> None:
        await self._process.turn("room")
        self.deliver(self._rng.randint(1, 10))

    async def durable(self) -> None:
        while self.buffered:
            await self._process.turn("flush outputs")
            if self._rng.random() < self.error_share:
                raise OSError("the broker refuses an output")
            self.deliver(self._rng.randint(0, 8))
        await self._process.turn("outputs are durable")


class SimStateLog:
    """The changelog: read at recovery, written record by record."""

    def __init__(self, process: Process, broker: Broker, rng: random.Random) -> None:
        self._process, self._broker, self._rng = process, broker, rng
        self.writing: tuple[int, deque[ChangelogRecord]] | None = None
        self.stop_share = 0.0
        self.stopped = False
        """Whether the process is stopped with a checkpoint handed over and nothing of it sent."""

    async def recover(
        self, partition: int, reader: ChangelogReader, progress: Callable[[int, int], None]
    ) -> None:
        await self._process.turn(f"recover {partition}")
        log = self._broker.changelog[partition]
        high = len(log)  # what comes after this was asked is not waited for
        for offset in range(reader.next_offset, high):
            if self._rng.random() < 0.1:
                await self._process.turn(f"recover {partition} at {offset}")
            record = log[offset]
            if record is not None:
                reader.feed(offset, *record)
            progress(offset, high)
        reader.caught_up(high)

    async def review(self, partition: int, reader: ChangelogReader, end: int) -> None:
        await self._process.turn(f"review {partition}")
        log = self._broker.changelog[partition]
        for offset in range(reader.next_offset, end):
            if self._rng.random() < 0.1:
                await self._process.turn(f"review {partition} at {offset}")
            record = log[offset]
            if record is not None:
                reader.review(offset, *record)
        reader.caught_up(end)

    async def follow(
        self, readers: Mapping[int, ChangelogReader], stop: threading.Event, followed: Any
    ) -> None:
        while not stop.is_set():
            await self._process.turn("follow")
            for partition, reader in readers.items():
                log = self._broker.changelog[partition]
                end = min(len(log), reader.next_offset + self._rng.randint(0, 5))
                for offset in range(reader.next_offset, end):
                    record = log[offset]
                    if record is not None:
                        reader.feed(offset, *record)
                reader.caught_up(end)

    def close(self) -> None: ...

    async def write(self, partition: int, records: Sequence[ChangelogRecord]) -> tuple[int, int]:
        broker = self._broker
        rest = deque(records)
        self.writing = (partition, rest)
        self.stopped = self._rng.random() < self.stop_share
        if self.stopped:
            await self._process.turn(f"stopped before checkpoint {partition}")
        while rest:
            if self._rng.random() < 0.3:
                await self._process.turn(f"checkpoint {partition}")
            broker.append_changelog(partition, rest.popleft())
        position = len(broker.changelog[partition]) - 1
        await self._process.turn(f"checkpoint {partition} acknowledged")
        broker.checkpointed(partition, self._process, records[-1])
        self.writing = None
        return position, 0


class SimFaust:
    """What StreamWorker uses of a Faust app, with Faust's bad habits on request."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self.consumer = self
        self.on_partitions_assigned = SimpleNamespace(connect=self._connect("assigned"))
        self.on_partitions_revoked = SimpleNamespace(connect=self._connect("revoked"))
        self.callbacks: dict[str, Callable[..., Any]] = {}
        self.consume: Callable[..., Any] | None = None
        self.assignor = SimpleNamespace(assigned_standbys=lambda: member.standby)

    def _connect(self, name: str) -> Callable[[Any], None]:
        return lambda callback: self.callbacks.__setitem__(name, callback)

    def topic(self, *_: Any, **__: Any) -> None: ...

    def agent(self, *_: Any, **__: Any) -> Callable[[Any], None]:
        return lambda function: setattr(self, "consume", function)

    async def seek(self, tp: TP, offset: int) -> None:
        await self._member.process.turn(f"seek {tp.partition} to {offset}")
        if tp.partition in self._member.assigned:
            self._member.positions[tp.partition] = offset

    async def position(self, tp: TP) -> int | None:
        await self._member.process.turn("position")
        return self._member.positions.get(tp.partition)

    async def earliest_offsets(self, tp: TP) -> dict[TP, int]:
        await self._member.process.turn("earliest offsets")
        return {tp: 0}
