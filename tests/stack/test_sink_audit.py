"""The audit on real services: what is missing, doubled, pending and refused, by an own count."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from routekeel.infra.local.stack import LocalStack
from routekeel.streams.history import audit_blocks
from routekeel.streams.history.audit import audit
from routekeel.streams.history.store import connect
from routekeel.streams.settings import Settings
from routekeel.streams.sinks.run import run_sink
from routekeel.streams.topics import describe
from tests.stack.sink_feed import Feed
from tests.stack.system import System

pytestmark = pytest.mark.stack


@pytest.fixture
def system(local_stack: LocalStack, tmp_path: Path) -> Iterator[System]:
    local_stack.up()
    system = System(local_stack, tmp_path, f"audit-{random.randrange(10**6)}")
    try:
        yield system
    finally:
        system.close()


def feed_of(settings: Settings, events: int) -> Feed:
    """A feed under the real id of the logits topic, which gets so many records a partition."""
    topic = settings.topics.logits
    feed = Feed(settings, describe(settings, [topic])[topic].topic_id)
    for _ in range(events):
        for partition in range(4):
            feed.raw(topic, partition, b"an event")
    feed.flush()
    return feed


def test_everything_there_is_ok(system: System) -> None:
    settings = system.prepare()
    feed = feed_of(settings, 60)
    feed.publish(range(50))
    for partition in range(4):
        feed.letters(range(50, 60), partition)
    run_sink(settings, until_idle_s=1.0)
    steps: list[tuple[int, int]] = []
    report = audit(settings, lambda done, total: steps.append((done, total)))
    assert report.ok, report.render()
    assert (report.events, report.rows, report.dlq) == (240, 200, 40)
    assert steps[-1] == (240, 240)


def test_missing_and_doubled_are_counted_as_by_hand(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    monkeypatch.setattr("routekeel.streams.history.audit.BLOCK_OFFSETS", 37)
    settings = system.prepare()
    feed = feed_of(settings, 200)
    held = {partition: sorted(rng.sample(range(200), 150)) for partition in range(4)}
    for partition, offsets in held.items():
        feed.publish(offsets, [partition])
    run_sink(settings, until_idle_s=1.0)
    client = connect(settings.clickhouse, database=settings.clickhouse.database)
    where = "WHERE source_partition = 2 AND source_offset % 5 = 0"
    client.command(f"INSERT INTO telemetry SELECT * FROM telemetry {where}")
    client.command("ALTER TABLE weights DELETE WHERE source_partition = 1 AND layer = 1 "
                   "AND source_offset < 20 SETTINGS mutations_sync = 2")  # fmt: skip
    report = audit(settings)
    assert not report.ok
    assert report.missing == 4 * 50
    assert report.duplicated == 2 * sum(offset % 5 == 0 for offset in held[2])
    assert report.partitions[1].weights_missing == sum(offset < 20 for offset in held[1])
    for partition, found in enumerate(report.partitions):
        absent = sorted(set(range(200)) - set(held[partition]))
        assert found.missing_first == absent[: audit_blocks.OFFSETS_SHOWN]


def test_what_a_live_worker_has_before_it_is_pending(system: System) -> None:
    settings = system.prepare()
    feed = feed_of(settings, 30)
    feed.publish(range(20))
    run_sink(settings, until_idle_s=1.0)
    assert audit(settings).missing == 40
    topic, group = settings.topics.logits, settings.worker.app_id
    worker = Consumer(settings.kafka.client_config() | {"group.id": group, "log_level": 0})
    try:
        worker.subscribe([topic])
        while len(worker.assignment()) < 4:
            worker.poll(0.1)
        worker.commit(offsets=[TopicPartition(topic, p, 20) for p in range(4)], asynchronous=False)
        report = audit(settings)
    finally:
        worker.close()
    assert (report.missing, report.pending, report.ok) == (0, 40, False)
