"""Sending blocks: without a broker, and to one in memory that keeps Kafka's rules."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
from aiokafka.record.default_records import DefaultRecordBatch
from confluent_kafka import KafkaError, KafkaException

from routekeel.streams.app import batch_sender
from routekeel.streams.app.batch_sender import STOP_S, BatchSender, Job, Lane
from routekeel.streams.app.kafka_producer import METADATA_PAUSE_S
from routekeel.streams.app.record_batch import Framer, RecordBatch
from routekeel.streams.settings import KafkaSettings
from routekeel.streams.topology.record_block import RecordBlock
from tests.unit.fake_kafka import SEQUENCES, FakeKafka
from tests.unit.mock_broker import closed_port

BLOCK = RecordBlock.of([b"k"], [b"v"])


def code(raised: pytest.ExceptionInfo[KafkaException]) -> Any:
    return raised.value.args[0].code()


def test_without_a_broker_it_waits_and_close_gives_up() -> None:
    with closed_port() as servers:
        sender = BatchSender(KafkaSettings(bootstrap_servers=servers), "test")
        waiting = [sender.send("topic", partition, BLOCK) for partition in (0, 1)]
        with pytest.raises(TimeoutError):
            waiting[0].result(0.2)
        assert not waiting[0].cancel()
        started = time.monotonic()
        sender.close()
        assert time.monotonic() - started < 2 * STOP_S
        for one in waiting:
            with pytest.raises(KafkaException) as raised:
                one.result(0)
            assert code(raised) == KafkaError._PURGE_QUEUE
        with pytest.raises(KafkaException):
            sender.send("topic", 0, BLOCK)
        sender.hurry()
        sender.close()


def test_after_a_failure_nothing_more_is_sent() -> None:
    with closed_port() as servers:
        sender = BatchSender(KafkaSettings(bootstrap_servers=servers), "test")
        waiting = sender.send("topic", 0, BLOCK)
        sender._loop.call_soon_threadsafe(
            sender._fail, batch_sender.aiokafka_errors.KafkaStorageError()
        )
        for one in (waiting, lambda: sender.send("topic", 1, BLOCK)):
            with pytest.raises(KafkaException) as raised:
                one.result(5) if isinstance(one, Future) else one()
            assert code(raised) == KafkaError.KAFKA_STORAGE_ERROR
        sender.close()


def values_of(batch: RecordBatch) -> list[bytes]:
    return [record.value for record in DefaultRecordBatch(bytearray(batch.encode(1, 0, 0)))]


def test_blocks_are_put_together_and_cut_at_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_sender, "BATCH_BYTES", 500)
    rng = np.random.default_rng(1)
    values = [[rng.bytes(size) for size in rng.integers(0, 200, count)] for count in (3, 40, 1, 7)]
    values[2] = [rng.bytes(3000)]  # alone larger than a batch
    jobs = [Job(Framer(RecordBlock.of([b"key"] * len(v), v)), Future()) for v in values]
    lane = Lane("topic", 0)
    lane.jobs.extend(jobs)
    lane.bytes_waiting = sum(job.bytes_to(len(job.framer)) for job in jobs)
    with closed_port() as servers:
        sender = BatchSender(KafkaSettings(bootstrap_servers=servers), "test")
        sent: list[bytes] = []
        ends: list[tuple[Job, int]] = []
        while lane.jobs:
            batch, ended = sender._next_batch(lane)
            ends += [(job, len(sent) + place) for job, place in ended]
            assert batch.count == 1 or len(batch.payload) <= 500
            sent += values_of(batch)
        sender.close()
    assert sent == [value for block in values for value in block]
    assert lane.bytes_waiting == 0
    lasts = np.cumsum([len(block) for block in values]) - 1
    assert ends == list(zip(jobs, lasts.tolist(), strict=True))


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> FakeKafka:
    fake = FakeKafka({"telemetry": [1, 1], "weights": [1, 1]})
    fake.install(monkeypatch)
    return fake


@pytest.fixture
def sender(kafka: FakeKafka) -> Iterator[BatchSender]:
    made = BatchSender(KafkaSettings(), "test")
    yield made
    made.close()


def blocks(*values: bytes) -> list[RecordBlock]:
    return [RecordBlock.of([b"k"], [value]) for value in values]


def test_offsets_are_those_of_the_last_records(kafka: FakeKafka, sender: BatchSender) -> None:
    sent = [sender.send("weights", 0, block) for block in blocks(b"a", b"b", b"c")]
    assert [one.result(5) for one in sent] == [0, 1, 2]
    assert kafka.log == {"weights": [b"a", b"b", b"c"]}


def test_nothing_arrives_that_was_behind_a_refused_batch(
    kafka: FakeKafka, sender: BatchSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_sender, "BATCH_BYTES", 1)  # each record goes in a batch of its own
    kafka.refused.add(("weights", b"b"))
    first = sender.send("weights", 0, blocks(b"a")[0])
    assert first.result(5) == 0
    del kafka._next["weights", 0]  # the broker has forgotten the producer, as after a day
    rest = [sender.send("weights", 0, block) for block in blocks(b"b", b"c", b"d")]
    for one in rest:
        with pytest.raises(KafkaException) as raised:
            one.result(5)
        assert code(raised) == KafkaError.MSG_SIZE_TOO_LARGE
    sender.close()
    assert kafka.log == {"weights": [b"a"]}


def test_a_lane_goes_on_while_another_topic_is_missing(
    kafka: FakeKafka, sender: BatchSender
) -> None:
    assert sender.send("telemetry", 0, BLOCK).result(5) == 0
    missing = sender.send("dlq", 0, BLOCK)
    for _ in range(3):
        kafka.away = True
        waiting = sender.send("telemetry", 0, BLOCK)
        with pytest.raises(TimeoutError):
            waiting.result(0.3)
        kafka.away = False
        waiting.result(5)
    assert not missing.done()
    kafka.topics["dlq"] = [1]
    assert missing.result(5) == 0


def test_sequence_numbers_begin_again_as_kafkas_do(kafka: FakeKafka, sender: BatchSender) -> None:
    sender.send("weights", 0, BLOCK).result(5)
    numbers = sender._producer.result()._txn_manager._sequence_numbers
    (place,) = [tp for tp in numbers if tp.topic == "weights"]
    numbers[place] = kafka._next["weights", 0] = SEQUENCES - 2
    for offset in range(1, 6):
        assert sender.send("weights", 0, BLOCK).result(5) == offset


def test_a_leader_is_not_asked_for_without_a_pause(kafka: FakeKafka, sender: BatchSender) -> None:
    sender.send("weights", 0, BLOCK).result(5)
    kafka.topics["weights"] = [-1, -1]

    async def know() -> None:
        await sender._producer.result().client.force_metadata_update()

    asyncio.run_coroutine_threadsafe(know(), sender._loop).result(5)
    waiting = sender.send("weights", 0, BLOCK)
    before = kafka.metadata_requests
    with pytest.raises(TimeoutError):
        waiting.result(1.0)
    assert kafka.metadata_requests - before <= 1.0 / METADATA_PAUSE_S + 3
    kafka.topics["weights"] = [1, 1]
    assert waiting.result(5) == 1


def test_a_request_is_bounded(
    kafka: FakeKafka, sender: BatchSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_sender, "BATCH_BYTES", 5_000)
    monkeypatch.setattr(batch_sender, "REQUEST_BYTES", 10_000)
    noise = np.random.default_rng(0)
    block = [RecordBlock.of([b"k"], [noise.bytes(4_000)]) for _ in range(20)]
    sent = [
        sender.send(topic, partition, one)
        for one in block
        for topic in ("telemetry", "weights")
        for partition in (0, 1)
    ]
    for one in sent:
        one.result(5)
    assert 4_000 < kafka.largest_request < 11_000
    huge = RecordBlock.of([b"k"], [noise.bytes(50_000)])
    sender.send("weights", 0, huge).result(5)


def test_what_can_never_connect_is_said(kafka: FakeKafka) -> None:
    settings = KafkaSettings(security_protocol="SASL_PLAINTEXT", sasl_mechanism="PLAIN")
    sender = BatchSender(settings, "test")
    with pytest.raises(KafkaException):
        sender.send("weights", 0, BLOCK).result(5)
    sender.close()


def test_a_broker_that_is_away_at_the_start_is_waited_for(kafka: FakeKafka) -> None:
    kafka.away = True
    sender = BatchSender(KafkaSettings(), "test")
    waiting = sender.send("weights", 0, BLOCK)
    with pytest.raises(TimeoutError):
        waiting.result(0.3)
    kafka.away = False
    assert waiting.result(5) == 0
    sender.close()
