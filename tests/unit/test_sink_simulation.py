"""The sink against a world that fails at every point: each row exactly once, whatever happens.

The model is independent of the sink's planning: a set of identities per table, computed from what
was ever in the log. Failures reproduce from hypothesis' printed example.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from routekeel.streams.sinks.actions import FindRows, Insert
from routekeel.streams.sinks.batch import BatchLimits
from routekeel.streams.sinks.core import SinkCore, Start
from routekeel.streams.sinks.offsets import parse_committed, resume_offset
from routekeel.streams.topology.records import LogBatch
from tests.unit.sink_world import (
    LETTERS,
    ROUTES,
    TOPIC,
    World,
    build,
    decode,
    has_token_rows,
    is_misshapen,
    is_poison,
    is_undecodable,
)

FOREVER = 1e9


class Sink:
    """The pure core, driven by hand: one process from its start to its crash."""

    def __init__(self, world: World, rows_max: int, trust_commits: bool) -> None:
        self.world = world
        self.trust_commits = trust_commits
        self.core = SinkCore(ROUTES, BatchLimits(rows_max, 0.0), decode, build)
        self.take_up()

    def take_up(self) -> None:
        starts = {}
        for topic, log in self.world.logs.items():
            progress = self.world.progress(topic)
            stored = progress[ROUTES[topic].anchor].stored
            commit = self.world.committed.get(topic, (-1001, None)) if self.trust_commits else None
            offset = resume_offset(
                log.topic_id, stored, parse_committed(*commit) if commit else None
            )
            starts[topic, 0] = Start(log.source, progress, min(offset, len(log.records)))
        self.core.assign(starts)

    def read(self, count: int) -> None:
        """Read up to so many records of each log, decode them."""
        for (topic, _), state in list(self.core.partitions.items()):
            log = self.world.logs[topic]
            # A position beyond the end is out of range, and the consumer starts at the beginning.
            at = state.next_offset if state.next_offset <= len(log.records) else 0
            records = log.records[at : at + count]
            if records and not self.core.receive((topic, 0), LogBatch.of(records), 0.0):
                self.take_up()
                return
        self.core.decode()

    def work(self, actions: int) -> None:
        """Perform up to so many actions, batch after batch."""
        for state in list(self.core.partitions.values()):
            if state.work is None:
                next(iter(self.core.ready(FOREVER)), None)
        for state in list(self.core.partitions.values()):
            while state.work is not None and actions > 0:
                action = state.work.next()
                if action is None:
                    if state.work.recreated:
                        self.take_up()
                        return
                    self.core.finished(state.work)
                    break
                actions -= 1
                state.work.done(self.world.perform(action))

    def commit(self) -> None:
        """Commit what is done to the group."""
        for (topic, _), state in self.core.partitions.items():
            committed = state.commit()
            self.world.committed[topic] = committed.offset, committed.metadata()

    def finish(self) -> None:
        """Until there is nothing to do; nothing fails any more."""
        self.world.plan.clear()
        for _ in range(2_000):
            self.read(50)
            self.work(50)
            logs = self.world.logs
            done = all(
                state.done_offset >= len(logs[topic].records)
                for (topic, _), state in self.core.partitions.items()
            )
            if done and not self.core.waiting:
                return
        raise AssertionError("the sink does not come to an end")


def assert_exact(world: World, ever_published: set[tuple[str, int, int]]) -> None:
    """Every table holds each record that it should, once; every bad record is a dead letter."""
    present = first_appearances(world)
    for name, rows in world.rows.items():
        identities = [identity for _, _, identity in rows]
        assert len(identities) == len(set(identities)), f"{name} has rows twice"
    good = {i for i in present if not (is_undecodable(i[2]) or is_poison(i[2]))}
    stored = {identity for _, _, identity in world.rows["telemetry"]}
    assert {i for i in good if not is_misshapen(i[2])} <= stored <= ever_published
    with_tokens = {identity for _, _, identity in world.rows["telemetry_tokens"]}
    assert {i for i in stored if has_token_rows(i[2])} <= with_tokens
    assert all(has_token_rows(i[2]) for i in with_tokens)
    assert not any(is_poison(i[2]) or is_undecodable(i[2]) for i in stored)


def first_appearances(world: World) -> set[tuple[str, int, int]]:
    """What the present log has, in ascending order of the source.

    Source offsets ascend but for repeats; only a log that was deleted with unstored outputs in it
    can begin in the middle and be followed by lower ones. Those are lost with it.
    """
    found: set[tuple[str, int, int]] = set()
    highest: dict[str, int] = {}
    for record in world.logs[TOPIC].records:
        identity = identity_of(record.value)
        assert identity is not None
        topic_id, _, offset = identity
        if offset > highest.get(topic_id, -1):
            highest[topic_id] = offset
            found.add(identity)
    return found


def identity_of(value: bytes | None) -> tuple[str, int, int] | None:
    import pickle

    fields = pickle.loads(value or b"")
    return fields["source_topic_id"], fields["source_partition"], fields["source_offset"]


EVENTS = st.one_of(
    st.tuples(st.just("publish"), st.integers(1, 40), st.integers(0, 25)),
    st.tuples(st.just("read"), st.integers(1, 60), st.just(0)),
    st.tuples(st.just("work"), st.integers(1, 12), st.just(0)),
    st.tuples(st.just("commit"), st.just(0), st.just(0)),
    st.tuples(st.just("crash"), st.just(0), st.just(0)),
    st.tuples(st.just("lose_tables"), st.just(0), st.just(0)),
    st.tuples(st.just("recreate_output"), st.just(0), st.just(0)),
    st.tuples(st.just("recreate_source"), st.just(0), st.just(0)),
)
PLANS = st.lists(st.sampled_from(("well", "down", "lost", "dropped", "memory")), max_size=60)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(EVENTS, max_size=60), PLANS, st.integers(1, 30), st.booleans())
def test_every_row_exactly_once(
    events: list[tuple[str, int, int]], plan: list[str], rows_max: int, trust_commits: bool
) -> None:
    world = World(plan=list(plan))
    published: set[tuple[str, int, int]] = set()
    sink = Sink(world, rows_max, trust_commits)
    for kind, count, again in events:
        match kind:
            case "publish":
                world.publish(count, again)
                published |= {
                    identity
                    for record in world.logs[TOPIC].records
                    if (identity := identity_of(record.value)) is not None
                }
            case "read":
                sink.read(count)
            case "work":
                sink.work(count)
            case "commit":
                sink.commit()
            case "crash":
                sink = Sink(world, rows_max, trust_commits)
            case "lose_tables":
                world.lose_tables()
                sink = Sink(world, rows_max, trust_commits)
            case "recreate_output":
                world.recreate_output()
            case "recreate_source":
                world.recreate_source()
    sink.finish()
    assert_exact(world, published)
    assert_bad_records_are_letters(world)


def assert_bad_records_are_letters(world: World) -> None:
    """Every bad record of the present log, unless it repeats one, is in the dead letters' table."""
    log = world.logs[TOPIC]
    letters = {identity for _, _, identity in world.rows["dead_letters"]}
    seen: dict[str, int] = {}
    for record in log.records:
        identity = identity_of(record.value)
        assert identity is not None
        topic_id, _, offset = identity
        first_time = offset > seen.get(topic_id, -1)
        seen[topic_id] = max(offset, seen.get(topic_id, -1))
        if is_undecodable(offset):
            assert (log.topic_id, 0, record.offset) in letters
        elif (is_poison(offset) or is_misshapen(offset)) and first_time and world.epoch == 1:
            assert any(log_id == log.topic_id for log_id, _, _ in letters)


def test_letters_are_sent_before_the_rows_of_the_same_batch() -> None:
    world = World()
    world.publish(24)
    sink = Sink(world, 100, False)
    sink.read(50)
    work = next(iter(sink.core.ready(FOREVER)))
    kinds = []
    while (action := work.next()) is not None:
        kinds.append(type(action).__name__)
        if isinstance(action, Insert):
            break
        work.done(world.perform(action))
    assert kinds[:3] == ["VerifyLog", "SendLetters", "Insert"]


@pytest.mark.parametrize("first", ["dropped", "lost"])
def test_what_was_perhaps_done_and_is_too_large_now_is_asked_for_and_cut(first: str) -> None:
    world = World()
    world.publish(30)
    published = first_appearances(world)
    sink = Sink(world, 100, False)
    sink.read(30)
    work = next(iter(sink.core.ready(FOREVER)))
    while not isinstance(action := work.next(), Insert):
        work.done(world.perform(action))  # type: ignore[arg-type]
    # For good, unless a single row is sent: a server with less memory than the batch takes.
    world.plan = [first, *["memory", "well"] * 200]
    for _ in range(3):
        action = work.next()
        work.done(world.perform(action))  # type: ignore[arg-type]
    assert isinstance(action, FindRows)
    assert (work.counts.splits, work.counts.inserts) == ((1, 0) if first == "dropped" else (0, 1))
    world.plan = []
    sink.finish()
    assert_exact(world, published)


def test_the_letters_topic_is_read_with_its_own_repeats() -> None:
    world = World()
    world.publish(60)
    Sink(world, 10, False).finish()
    before = list(world.rows["dead_letters"])
    log = world.logs[LETTERS]
    for record in list(log.records):
        log.records.append(record._replace(offset=len(log.records)))
    Sink(world, 10, False).finish()
    assert world.rows["dead_letters"] == before
