"""The members of one group, their rebalances and deaths, driven turn by turn to the end."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from routekeel.schemas.codec import Encoder
from routekeel.schemas.records import ROUTER_LOGITS
from routekeel.schemas.registry import FixedSchemaIds
from tests.simulation.broker import Broker
from tests.simulation.member import Disk, Faults, Member
from tests.simulation.scenario import Scenario, Source
from tests.simulation.turns import Process, Turns
from tests.simulation.verdict import settings

FINAL_TURNS_MAX = 40_000


class Stuck(AssertionError):
    """Without faults, everything was not applied and durable after very many turns."""


class World:
    """The members of one group, their rebalances and deaths."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.rng = random.Random(f"world {scenario.seed}")
        self.turns = Turns(random.Random(f"turns {scenario.seed}"))
        self.broker = Broker(self.rng, scenario.partitions)
        self.broker.owns = self._owns
        self.ids = FixedSchemaIds()
        self.source = Source(scenario, Encoder(ROUTER_LOGITS, self.ids.register(ROUTER_LOGITS, "")))
        self.members: list[Member] = []
        self.zombies: list[Member] = []
        self.disks: list[Disk] = []
        self.revoking: list[asyncio.Task[Any]] | None = None
        self.calm = False
        self.deaths = self.rebalances = self.refused = self._named = 0

    def start_member(self) -> None:
        """One more worker; the group rebalances."""
        self._named += 1
        process = Process(self.turns, f"worker-{self._named}")
        calm = Faults()
        scenario = self.scenario
        wild = Faults(
            scenario.gap, scenario.repeat, scenario.send_error, scenario.topic_away,
            scenario.stop_writing, scenario.full_disk,
        )  # fmt: skip
        member = Member(
            process, self.broker, settings(self.scenario.standby), self.scenario.config, self.ids,
            self.rng, calm if self.calm else wild, self._disk(),
        )  # fmt: skip
        self.members.append(member)
        self.begin_rebalance()

    def _disk(self) -> Disk:
        """The local databases of somebody who died, or none."""
        if self.scenario.disks and self.disks and self.rng.random() < 0.7:
            return self.disks.pop(self.rng.randrange(len(self.disks)))
        return Disk(self.rng)

    def begin_rebalance(self) -> None:
        """Everybody has to give up what they have before anybody gets anything."""
        self.rebalances += 1
        self.revoking = [member.process.spawn(member.faust.revoke()) for member in self.members]

    def _owns(self, process: Process, partition: int) -> bool:
        return any(
            member.process is process
            and partition in member.faust.assigned
            and not member.faust.rebalancing
            for member in self.members
        )

    def go_on_with_rebalance(self) -> None:
        """Once all have given up (or died), the partitions are dealt out."""
        if self.revoking is None or not all(task.done() for task in self.revoking):
            return
        self.revoking = None
        if not self.members:
            return
        dealt: dict[int, set[int]] = {index: set() for index in range(len(self.members))}
        for partition in range(self.scenario.partitions):
            dealt[self.rng.randrange(len(self.members))].add(partition)
        for index, member in enumerate(self.members):
            keep = self.rng.random() < self.scenario.keep_queue
            member.process.spawn(member.faust.assign(dealt[index], keep))

    def bury(self, member: Member, stopped: bool = False) -> None:
        """A member dies; the group notices."""
        self.deaths += 1
        self.refused, member.disk.refused = self.refused + member.disk.refused, 0
        member.die(stopped)
        self.disks.append(member.disk)
        if member in self.zombies:
            self.zombies.remove(member)
            return
        self.members.remove(member)
        self.begin_rebalance()

    def bury_failed(self) -> None:
        """Whoever failed ends its process, as a real worker does; whoever is stopped loses its place."""
        for member in [*self.members, *self.zombies]:
            failure = member.failed
            if failure is not None:
                if not isinstance(failure, OSError):
                    raise failure
                self.bury(member)
        for member in [*self.members, *self.zombies]:
            if member.state_log.stopped:
                self.bury(member, stopped=True)

    def misfortune(self) -> None:
        """Something goes wrong, or a message of the group arrives."""
        rng, scenario = self.rng, self.scenario
        if self.members and rng.random() < scenario.crash:
            self.bury(rng.choice(self.members))
        if self.members and rng.random() < scenario.stop:
            self.bury(rng.choice(self.members), stopped=True)
        if self.members and rng.random() < scenario.zombie:
            # The group gives it up, and it does not know: it goes on with what it has fetched.
            member = rng.choice(self.members)
            self.members.remove(member)
            self.zombies.append(member)
            member.faust.rebalancing = True
            self.begin_rebalance()
        if self.zombies and rng.random() < 0.03:
            self.bury(rng.choice(self.zombies), stopped=rng.random() < 0.5)
        if self.members and rng.random() < scenario.rebalance:
            self.begin_rebalance()
        if rng.random() < 0.05:
            self.broker.late_arrivals()
        if rng.random() < 0.05:
            self.broker.compact(rng.randrange(scenario.partitions))
        if self.members and rng.random() < 0.1:
            rng.choice(self.members).commit()
        if rng.random() < scenario.retention:
            self.broker.retain(rng.randrange(scenario.partitions))

    def publish(self, wanted: int | None = None) -> None:
        """One more record in the log, or as many as it takes for one in the wanted partition."""
        partition = None
        while partition is None or wanted not in (None, partition):
            offsets = {partition: len(log) for partition, log in self.broker.logs.items()}
            partition, record = self.source.record(offsets)
            self.broker.logs[partition].append(record)

    async def run(self) -> None:
        """The wild part."""
        scenario = self.scenario
        self.turns.install(asyncio.get_running_loop())
        for step in range(scenario.steps):
            if self.source.made < scenario.chunks * (step + 1) / scenario.steps:
                self.publish()
            self.misfortune()
            self.bury_failed()
            if len(self.members) < scenario.members and self.rng.random() < 0.1:
                self.start_member()
            self.go_on_with_rebalance()
            await self.turns.grant()
        await self.settle()

    async def settle(self) -> None:
        """No more faults: everything has to become applied and durable, and stay so after compaction."""
        self.calm = True
        while self.source.made < self.scenario.chunks:
            self.publish()
        for member in [*self.members, *self.zombies]:
            self.bury(member, stopped=self.rng.random() < self.scenario.stop * 20)
        self.broker.late_arrivals()
        self.start_member()
        await self.until_done()
        # The last stopped process wakes up after everything was done. Another takes over, or the
        # owner meets its records with its own next ones.
        self.broker.late_arrivals(all_of_them=True)
        if self.rng.random() < 0.5:
            self.bury(self.members[0])
            self.start_member()
        else:
            for partition in [number for number, log in self.broker.logs.items() if log]:
                self.publish(partition)
        await self.until_done()
        for member in list(self.members):
            member.die(stopped=False)
        await asyncio.sleep(0)

    async def until_done(self) -> None:
        """Turn by turn until everything is applied and durable. Raises Stuck."""
        for turn in range(FINAL_TURNS_MAX):
            self.bury_failed()
            self.go_on_with_rebalance()
            if turn % 50 == 25:
                self.broker.late_arrivals()
            if turn % 10 == 0 and self.is_done():
                break
            await self.turns.grant()
        else:
            raise Stuck("not everything is applied and durable, although nothing fails any more")

    def is_done(self) -> bool:
        """Whether every partition is applied to its end, durably."""
        (member,) = self.members
        ready = member.partitions.ready()
        return (
            set(ready) == set(self.broker.logs)
            and all(
                owned.processor.watermark.applied_offset == len(self.broker.logs[p]) - 1
                and not owned.processor.is_dirty
                for p, owned in ready.items()
            )
            and not member.output.buffered
            and not member.worker._busy.locked()  # it may be reading what another wrote between
        )
