"""A worker that was stopped, lost its partition, wakes and writes to the changelog all the same.

Its kept store, and that of whoever took over, must know that the log between holds another's records.
"""

from __future__ import annotations

import random

import pytest

from routekeel.streams.driver import TopologyDriver
from routekeel.streams.topology.changelog import ChangelogRecord, MemoryStore
from routekeel.streams.topology.changelog_reader import ChangelogReader
from routekeel.streams.topology.config import TopologyConfig
from routekeel.streams.topology.partition import PartitionProcessor
from tests.stream.chunks import START_US, chunk_fields

SESSIONS = [f"session-{n}" for n in range(8)]
LENGTH = 60


def driver(seed: int, **config: int) -> TopologyDriver:
    """A log of eight sessions; those that are idle for a while are evicted."""
    rng = random.Random(seed)
    made = TopologyDriver(
        TopologyConfig(kernel="numpy", **{"session_ttl_us": 15_000_000, **config})
    )
    position = dict.fromkeys(SESSIONS, 0)
    for index in range(LENGTH):
        session = rng.choice(SESSIONS)
        at_us = START_US + index * 1_000_000
        made.append(
            chunk_fields(session, position[session], 1, event_time_us=at_us, layers=[0]),
            at_us // 1000,
        )
        position[session] += 1
    return made


class Owner:
    """A worker with a store that it keeps from one assignment to the next."""

    def __init__(self, world: TopologyDriver) -> None:
        self.world = world
        self.store = MemoryStore()
        self.reader = ChangelogReader(self.store)
        self.recover()

    def recover(self) -> None:
        """An assignment: read what is new in the changelog."""
        changelog = self.world.changelog
        for offset in range(self.reader.next_offset, len(changelog)):
            self.reader.feed(offset, *changelog[offset])
        self.processor: PartitionProcessor = self.world.processor_on(self.store)
        self.write_again()

    def apply(self, count: int) -> None:
        """Apply the next records of the log."""
        start = self.processor.watermark.applied_offset + 1
        self.processor.apply(self.world.log[start : start + count])

    def checkpoint(self) -> None:
        """Write a checkpoint at the end of the log, whoever wrote before."""
        if self.processor.is_dirty:
            changelog, records = self.world.changelog, self.processor.checkpoint()
            changelog += records
            mark, foreign = self.processor.watermark, self.reader.foreign_writes
            self.processor.checkpointed(self.reader.wrote(records, len(changelog) - 1, mark))
            if self.reader.foreign_writes > foreign:
                for offset in range(self.reader.next_offset, len(changelog)):
                    self.reader.review(offset, *changelog[offset])
            self.write_again()

    def write_again(self) -> None:
        """What the reader found under late records goes into the next checkpoint."""
        self.processor.rewrite(self.reader.late)


def after_compaction(
    changelog: list[ChangelogRecord], end: int | None = None
) -> dict[bytes, bytes]:
    """What somebody with nothing reads from a log of which the cleaner has done the part below `end`.

    Of that part it leaves each key's newest record; what follows is as it was.
    """
    end = len(changelog) if end is None else end
    newest = {record.key: offset for offset, record in enumerate(changelog[:end])}
    store = MemoryStore()
    reader = ChangelogReader(store)
    for offset in [*sorted(newest.values()), *range(end, len(changelog))]:
        reader.feed(offset, *changelog[offset])
    return dict(store.items())


def assert_compaction_is_harmless(changelog: list[ChangelogRecord], state: object) -> None:
    """Wherever the cleaned part ends: a border is where a segment ended, and that is anywhere."""
    for end in range(len(changelog) + 1):
        assert after_compaction(changelog, end) == state, f"cleaned below {end}"


def states_by_length(seed: int) -> list[dict[bytes, bytes]]:
    """The oracle: every session's state after 0, 1, 2, … records of the log."""
    oracle = driver(seed)
    store = MemoryStore()
    oracle.processor = oracle.processor_on(store)
    states = [dict(store.items())]
    for offset in range(len(oracle.log)):
        oracle.processor.apply(oracle.log[offset : offset + 1])
        oracle.processor.checkpointed(offset)
        states.append(dict(store.items()))
    return states


def test_a_kept_store_learns_what_others_wrote_while_its_worker_was_stopped() -> None:
    world, states = driver(3), states_by_length(3)
    sleeper = Owner(world)
    sleeper.apply(10)
    sleeper.checkpoint()
    sleeper.apply(4)  # and is stopped before its next checkpoint
    other = Owner(world)
    other.apply(15)
    other.checkpoint()
    sleeper.checkpoint()  # it wakes
    other.apply(2)
    other.checkpoint()  # the partition is taken from it again
    sleeper.recover()
    assert dict(sleeper.store.items()) == states[27]
    sleeper.apply(len(world.log))
    sleeper.checkpoint()
    other.recover()
    assert dict(other.store.items()) == states[-1]


def a_late_checkpoint(at: int) -> tuple[TopologyDriver, Owner]:
    """A log in which a stopped process's early checkpoint follows its successor's, and the successor."""
    world = driver(3)
    sleeper = Owner(world)
    sleeper.apply(14)  # and is stopped before its checkpoint
    other = Owner(world)
    other.apply(at)
    other.checkpoint()
    sleeper.checkpoint()  # it wakes
    return world, other


def test_compaction_after_a_late_checkpoint_would_bring_evicted_sessions_back() -> None:
    world, _ = a_late_checkpoint(LENGTH)
    states = states_by_length(3)
    assert set(states[14]) - set(states[LENGTH]), "some were evicted in between"
    assert after_compaction(world.changelog) != states[LENGTH]


def test_the_owner_writes_again_what_a_late_checkpoint_lies_over() -> None:
    world, other = a_late_checkpoint(50)
    other.apply(5)
    other.checkpoint()  # here it meets the other's records
    assert other.processor.is_dirty
    other.checkpoint()
    assert not other.processor.is_dirty
    assert_compaction_is_harmless(world.changelog, states_by_length(3)[55])


def test_who_takes_over_writes_again_what_a_late_checkpoint_lies_over() -> None:
    world, _ = a_late_checkpoint(LENGTH)
    successor = Owner(world)
    assert successor.processor.is_dirty
    successor.checkpoint()
    assert not successor.processor.is_dirty
    assert_compaction_is_harmless(world.changelog, states_by_length(3)[LENGTH])
    assert not Owner(world).processor.is_dirty, "once is enough"


@pytest.mark.parametrize("seed", range(8))
def test_any_number_of_stopped_and_woken_writers_change_no_byte(seed: int) -> None:
    rng = random.Random(seed)
    world, states = driver(seed), states_by_length(seed)
    owners = [Owner(world) for _ in range(3)]
    current = owners[0]
    for _ in range(50):
        chance = rng.random()
        if chance < 0.2:
            current = rng.choice(owners)
            current.recover()
        elif chance < 0.4:
            rng.choice(owners).checkpoint()  # whoever it is: stopped ones wake for just that
        elif chance < 0.5:
            rng.choice(owners).apply(rng.randint(1, 4))
        else:
            current.apply(rng.randint(1, 4))
            if rng.random() < 0.5:
                current.checkpoint()
        for owner in owners:
            mark = owner.store.watermark
            if mark is not None:
                assert dict(owner.store.items()) == states[mark.applied_offset + 1]
    last = Owner(world)
    last.apply(LENGTH)
    last.checkpoint()
    last.checkpoint()
    assert_compaction_is_harmless(world.changelog, states[LENGTH])
