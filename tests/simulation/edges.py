"""What a simulated worker process writes to: a producer and a state log (faust.py is what it reads from)."""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from routekeel.streams.app.standby import Followed
from routekeel.streams.topology.changelog import ChangelogRecord
from routekeel.streams.topology.changelog_reader import ChangelogReader
from routekeel.streams.topology.record_block import RecordBlock
from tests.simulation.broker import Broker
from tests.simulation.turns import Process

BUFFER_MAX = 40


class SimOutput:
    """The producer: records wait in the client and reach the broker some time, in order."""

    def __init__(
        self, process: Process, broker: Broker, rng: random.Random, room: int = BUFFER_MAX
    ) -> None:
        self._process, self._broker, self._rng, self._room = process, broker, rng, room
        self.buffered: deque[tuple[str, int, bytes | None, bytes]] = deque()
        self.error_share = 0.0

    def send(self, topic: str, partition: int, block: RecordBlock) -> bool:
        if len(self.buffered) >= self._room:
            return False
        self.buffered += [(topic, partition, key, value or b"") for key, value in block.records()]
        return True

    def close(self) -> None: ...

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
        start, high = (
            reader.next_offset,
            len(log),
        )  # what comes after this was asked is not waited for
        if start > high:
            raise ValueError("the local store is ahead of the changelog")
        progress(0, high - start)
        for offset in range(start, high):
            if self._rng.random() < 0.1:
                await self._process.turn(f"recover {partition} at {offset}")
            record = log[offset]
            if record is not None:
                reader.feed(offset, *record)
            progress(offset + 1 - start, high - start)
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
        self, readers: Mapping[int, ChangelogReader], stop: threading.Event, followed: Followed
    ) -> None:
        positions = {partition: reader.next_offset for partition, reader in readers.items()}
        while not stop.is_set():
            await self._process.turn("follow")
            fed = behind = 0
            for partition, reader in readers.items():
                log, start = self._broker.changelog[partition], positions[partition]
                positions[partition] = end = min(len(log), start + self._rng.randint(0, 5))
                for offset in range(start, end):
                    record = log[offset]
                    if record is not None:
                        reader.feed(offset, *record)
                        fed += 1
                # A reader that follows is not told of offsets that nothing is left at.
                behind += max(0, len(log) - reader.next_offset)
            followed(fed, behind)

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
        return position, sum(len(key) + len(value or b"") for key, value, _ in records)
