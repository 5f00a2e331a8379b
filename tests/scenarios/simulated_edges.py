"""The simulation's edges; turns are granted by a seed as long as the scenario runs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress

from routekeel.schemas.tables import DEAD_LETTERS_TABLE, Table
from routekeel.streams.sinks.actions import Insert
from routekeel.streams.sinks.dedupe import LetterKey, TableProgress
from routekeel.streams.sinks.outcomes import Failed, Outcome
from routekeel.streams.topology.changelog import ChangelogRecord
from routekeel.streams.topology.records import SourceRecord
from tests.scenarios.edges import PARTITIONS
from tests.simulation import edges as simulated
from tests.simulation.broker import Broker
from tests.simulation.faust import SimFaust, topic_id
from tests.simulation.tables import SimTables
from tests.simulation.turns import Process, Turns


class SimulatedEdges:
    """One broker in memory."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(f"scenario {seed}")
        self.turns = Turns(self.rng)
        self.broker = Broker(self.rng, PARTITIONS)

    @asynccontextmanager
    async def state_logs(self) -> AsyncIterator[SimStateLogs]:
        async with self._granting():
            yield SimStateLogs(self)

    @asynccontextmanager
    async def outputs(self) -> AsyncIterator[SimOutputs]:
        async with self._granting():
            yield SimOutputs(self)

    @asynccontextmanager
    async def group(self) -> AsyncIterator[SimGroup]:
        async with self._granting():
            group = SimGroup(self)
            yield group
            for member in group.members:
                member.process.kill()

    @asynccontextmanager
    async def tables(self) -> AsyncIterator[SimulatedTables]:
        yield SimulatedTables()

    @asynccontextmanager
    async def _granting(self) -> AsyncIterator[None]:
        self.turns.install(asyncio.get_running_loop())
        granting = asyncio.ensure_future(self._grant())
        yield
        granting.cancel()
        with suppress(asyncio.CancelledError):
            await granting

    async def _grant(self) -> None:
        while True:
            await self.turns.grant()
            await asyncio.sleep(0)

    def process(self) -> Process:
        """One more."""
        return Process(self.turns, "worker")


class SimStateLogs:
    """The changelogs of the broker."""

    def __init__(self, world: SimulatedEdges) -> None:
        self._world = world

    def client(self) -> simulated.SimStateLog:
        return simulated.SimStateLog(self._world.process(), self._world.broker, self._world.rng)

    def append(self, partition: int, records: Sequence[ChangelogRecord]) -> None:
        for record in records:
            self._world.broker.append_changelog(partition, record)

    def leave_out(self, partition: int) -> int:
        self._world.broker.changelog[partition] += [None, None]
        self._world.broker.stamps[partition] += [0, 0]
        return 2


class SimOutputs:
    """The output topic of the broker."""

    topic = "telemetry"

    def __init__(self, world: SimulatedEdges) -> None:
        self._world = world
        self._clients: list[simulated.SimOutput] = []

    def client(self, room: int) -> simulated.SimOutput:
        world = self._world
        client = simulated.SimOutput(world.process(), world.broker, world.rng, room)
        self._clients.append(client)
        return client

    def refuse(self) -> None:
        for client in self._clients:
            client.error_share = 1.0

    def log(self, partition: int) -> list[tuple[bytes | None, bytes]]:
        return self._world.broker.outputs.get(self.topic, {}).get(partition, [])


class SimGroup:
    """The broker's logs and one group; partitions are dealt out in turn."""

    topic = "logits"

    def __init__(self, world: SimulatedEdges) -> None:
        self.world = world
        self.members: list[SimMember] = []

    def member(self, committable: Callable[[int], int | None]) -> SimMember:
        return SimMember(self, committable)

    def publish(self, partition: int, values: Sequence[bytes]) -> None:
        log = self.world.broker.logs[partition]
        for value in values:
            log.append(SourceRecord(len(log), 1_790_000_000_000, b"key", value, []))

    def remove_below(self, partition: int, offset: int) -> None:
        self.world.broker.log_starts[partition] = offset

    async def topic_id(self) -> str:
        return await topic_id(self.world.process(), self.world.broker, self.topic)

    async def recreate_topic(self, meanwhile: Callable[[], Awaitable[None]]) -> None:
        self.world.broker.topic_id = None
        await meanwhile()
        self.world.broker.topic_id = "log-2"

    async def rebalance(self) -> None:
        """Everybody has given up what they had before anybody gets anything."""
        await asyncio.gather(*(member.app.revoke() for member in self.members))
        dealt: list[set[int]] = [set() for _ in self.members]
        for partition in range(PARTITIONS if self.members else 0):
            dealt[partition % len(dealt)].add(partition)
        await asyncio.gather(
            *(
                member.app.assign(taken, keep_queue=self.world.rng.random() < 0.5)
                for member, taken in zip(self.members, dealt, strict=True)
            )
        )


class SimMember:
    """A simulated Faust in the group."""

    def __init__(self, group: SimGroup, committable: Callable[[int], int | None]) -> None:
        world = group.world
        self.process = world.process()
        self.app = SimFaust(self.process, world.broker, group.topic, world.rng)
        self._group, self._committable = group, committable

    async def start(self) -> None:
        self._group.members.append(self)
        self.app.start()
        await self._group.rebalance()

    async def commit(self) -> None:
        self.app.commit(self._committable)

    async def stop(self) -> None:
        self._group.members.remove(self)
        self.process.kill()
        await self._group.rebalance()


class SimulatedTables:
    """The simulated tables, with the simulated store's ways to fail."""

    def __init__(self) -> None:
        self._tables = SimTables()
        self.progress: Callable[..., dict[int, dict[str, TableProgress]]] = self._tables.progress

    def known_letters(self, keys: Sequence[LetterKey]) -> frozenset[LetterKey]:
        return self._tables.known_letters(DEAD_LETTERS_TABLE, keys)

    def insert(self, action: Insert, fault: str = "") -> Outcome:
        if fault == "down":
            return Failed("connection refused")
        outcome = self._tables.insert(action)
        return Failed("timeout", unknown=True) if fault == "lost" else outcome

    def has(self, action: Insert) -> bool:
        return self._tables.has(action)

    def count(self, table: Table) -> int:
        return len(self._tables.rows[table.name])

    def refuse_long_requests(self, longest: int | None) -> None:
        self._tables.refuses = lambda row: (
            longest is not None and len(row.get("request_id", "")) > longest
        )
