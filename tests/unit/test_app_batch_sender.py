"""Sending without a broker: what waits, what ends, and how batches are put together."""

from __future__ import annotations

import time
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
from aiokafka.record.default_records import DefaultRecordBatch
from confluent_kafka import KafkaError, KafkaException

from routekeel.streams.app import batch_sender
from routekeel.streams.app.batch_sender import STOP_S, BatchSender, Job, Lane
from routekeel.streams.app.record_batch import Framer, RecordBatch
from routekeel.streams.settings import KafkaSettings
from routekeel.streams.topology.record_block import RecordBlock
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
