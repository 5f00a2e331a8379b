"""The rest of the way in memory: the real sink core between the outputs' logs and a store that fails.

Records are decoded, and rows built and encoded, by the sink's own code; the tables know tokens, and may
do an insert without saying so.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from routekeel.schemas.registry import FixedSchemaIds
from routekeel.schemas.tables import DEAD_LETTERS_TABLE
from routekeel.streams.settings import Settings
from routekeel.streams.sinks.actions import (
    Action,
    FindLetters,
    FindRows,
    Insert,
    SendLetters,
    VerifyLog,
)
from routekeel.streams.sinks.batch import BatchLimits
from routekeel.streams.sinks.core import SinkCore, Start
from routekeel.streams.sinks.items import ItemDecoder, routes_of
from routekeel.streams.sinks.offsets import parse_committed, resume_offset
from routekeel.streams.sinks.outcomes import (
    Absent,
    Done,
    Failed,
    Fault,
    Found,
    Outcome,
    RefusedByStore,
)
from routekeel.streams.sinks.payload import build_payload
from routekeel.streams.topology.records import LogBatch, Source, SourceRecord
from tests.simulation.broker import Broker
from tests.simulation.scenario import BrokerClock, Scenario
from tests.simulation.tables import SimTables

START_MS = 1_790_000_000_000
FOREVER = 1e9
ROUNDS_MAX = 5_000


class SimStore:
    """Tables by name; the sink's own topics as logs."""

    def __init__(
        self, broker: Broker, settings: Settings, ids: FixedSchemaIds, scenario: Scenario
    ) -> None:
        self.rng, self.fault = random.Random(f"store {scenario.seed}"), scenario.store_fault
        self.routes = routes_of(settings)
        self.decoders = {topic: ItemDecoder(route, ids) for topic, route in self.routes.items()}
        self.logs: dict[tuple[str, int], list[SourceRecord]] = {
            (topic, partition): _stamped(
                broker.outputs.get(topic, {}).get(partition, []),
                BrokerClock(scenario, f"{topic} {partition}"),
            )
            for topic in self.routes
            for partition in broker.logs
        }
        self.tables = SimTables()
        self.committed: dict[tuple[str, int], tuple[int, str | None]] = {}
        self.core = self._start()

    def _start(self) -> SinkCore:
        """A new sink process: it asks the tables how far they are."""
        limits = BatchLimits(self.rng.randint(1, 40), 0.0)
        core = SinkCore(
            self.routes, limits, lambda t, records: self.decoders[t].decode(records), build_payload
        )
        starts = {}
        for topic, partition in self.logs:
            source = Source(topic, f"{topic}-1", partition)
            route = self.routes[topic]
            progress = self.tables.progress(route, source.topic_id, [partition])[partition]
            stored = progress[route.anchor].stored
            commit = self.committed.get((topic, partition))
            known = parse_committed(*commit) if commit and self.rng.random() < 0.5 else None
            offset = resume_offset(source.topic_id, stored, known)
            starts[topic, partition] = Start(source, progress, offset)
        core.assign(starts)
        return core

    def run(self) -> None:
        """Until everything is stored; crashes and faults by the seed, none in the second half."""
        for number in range(ROUNDS_MAX):
            if number > ROUNDS_MAX // 2:
                self.fault = 0.0
            if self.rng.random() < self.fault / 4:
                self.core = self._start()
            self._read(self.rng.randint(1, 20))
            self._work(self.rng.randint(1, 8))
            if self.rng.random() < 0.3:
                self._commit()
            if self._is_done():
                return
        raise AssertionError("the sink does not come to an end")

    def _read(self, count: int) -> None:
        for key, state in self.core.partitions.items():
            records = self.logs[key][state.next_offset : state.next_offset + count]
            if records:
                assert self.core.receive(key, LogBatch.of(records), 0.0)
        self.core.decode()

    def _work(self, actions: int) -> None:
        for state in self.core.partitions.values():
            if state.work is None:
                next(iter(self.core.ready(FOREVER)), None)
            while state.work is not None and actions > 0:
                action = state.work.next()
                if action is None:
                    self.core.finished(state.work)
                    break
                actions -= 1
                state.work.done(self._perform(action))

    def _commit(self) -> None:
        for key, state in self.core.partitions.items():
            committed = state.commit()
            self.committed[key] = committed.offset, committed.metadata()

    def _is_done(self) -> bool:
        return not self.core.waiting and all(
            state.done_offset >= len(self.logs[key]) for key, state in self.core.partitions.items()
        )

    def _perform(self, action: Action) -> Outcome:
        how = self.rng.choice(["down", "lost", "memory"]) if self.rng.random() < self.fault else ""
        match action:
            case VerifyLog():
                return Failed("no answer") if how == "down" else Done()
            case FindLetters():
                if how == "down":
                    return Failed("no answer")
                return Found(self.tables.known_letters(DEAD_LETTERS_TABLE, action.keys))
            case SendLetters():
                raise AssertionError(f"the worker's output is refused: {action.letters}")
            case FindRows():
                if how == "down":
                    return Failed("no answer")
                return Done() if self.tables.has(action.insert) else Absent()
            case Insert():
                return self._insert(action, how)

    def _insert(self, action: Insert, how: str) -> Outcome:
        if how == "down":
            return Failed("connection refused", unknown=self.rng.random() < 0.5)
        if how == "memory" and action.payload.rows > 1:
            return RefusedByStore(Fault.SIZE, "memory limit exceeded")
        outcome = self.tables.insert(action)
        return Failed("timeout", unknown=True) if how == "lost" else outcome


def _stamped(
    records: Sequence[tuple[bytes | None, bytes]], clock: BrokerClock
) -> list[SourceRecord]:
    return [
        SourceRecord(offset, clock.stamp(START_MS + offset), key, value, ())
        for offset, (key, value) in enumerate(records)
    ]
