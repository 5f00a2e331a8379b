"""What the worker hands over: every output and letter, counted, none larger than the topic takes."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from routekeel.schemas.codec import Encoder
from routekeel.schemas.records import DEAD_LETTER
from routekeel.streams.app.metrics import WorkerMetrics
from routekeel.streams.app.output import OutputProducer
from routekeel.streams.app.sender import Sender
from routekeel.streams.driver import SOURCE, TopologyDriver
from routekeel.streams.settings import Settings, load_settings
from routekeel.streams.sinks.letters import LetterProducer
from routekeel.streams.topology.cadence import Cadence
from routekeel.streams.topology.config import TopologyConfig
from routekeel.streams.topology.dead_letter import dead_letter_fields
from routekeel.streams.topology.record_block import Outputs, RecordBlock
from routekeel.streams.topology.records import BatchResult, DeadLetter, SourceRecord
from tests.stream.chunks import chunk_fields
from tests.unit.mock_broker import closed_port


class Sent:
    """An output that keeps what it is given; full at every second call."""

    def __init__(self) -> None:
        self.records: list[tuple[str, int, bytes | None, bytes]] = []
        self.waits = 0
        self._calls = 0

    def send(self, topic: str, partition: int, block: RecordBlock) -> bool:
        self._calls += 1
        if self._calls % 2 == 0:
            return False
        self.records += [(topic, partition, key, value or b"") for key, value in block.records()]
        return True

    async def room(self) -> None:
        self.waits += 1

    async def durable(self) -> None: ...

    def poll(self) -> None: ...


def sender_with(output: Any, settings: Settings) -> tuple[Sender, WorkerMetrics]:
    metrics = WorkerMetrics()
    return Sender(settings, output, Encoder(DEAD_LETTER, 1), metrics), metrics


def batch() -> BatchResult:
    driver = TopologyDriver(TopologyConfig(kernel="numpy", cadence=Cadence(1)))
    for start in (0, 3, 0):
        driver.append(chunk_fields("s", start))
    driver.append_raw(b"k", b"no record")
    return driver.processor.apply(driver.log)


async def test_every_output_and_letter_is_handed_over_and_its_bytes_are_counted() -> None:
    settings = load_settings(None, {}, {}).settings
    sent, result = Sent(), batch()
    sender, metrics = sender_with(sent, settings)
    await sender.send(SOURCE, result)
    topics = settings.topics
    assert [topic for topic, *_ in sent.records] == [
        *[topics.telemetry] * 3,
        *[topics.weights] * 2,
        topics.dlq,
    ]
    assert sent.waits == 2
    value = metrics.registry.get_sample_value
    total = sum(len(value) for *_, value in sent.records)
    assert value("routekeel_worker_output_bytes_total") == total
    assert value("routekeel_worker_outputs_total", {"topic": "telemetry"}) == 3
    assert value("routekeel_worker_outputs_total", {"topic": "weights"}) == 2
    assert value("routekeel_worker_outputs_total", {"topic": "dlq"}) == 1


def near_the_limit(settings: Settings) -> DeadLetter:
    """A record that a topic takes, but not with the envelope of a letter."""
    value = b"v" * (settings.topics.record_bytes_max - 50)
    return DeadLetter(SourceRecord(3, 1_000, b"k", value, ()), "bad_body", "why")


async def test_the_letter_of_the_largest_record_goes_through_the_worker_and_the_sink() -> None:
    with closed_port() as servers:
        settings = load_settings(None, {"kafka.bootstrap_servers": servers}, {}).settings
        letter = near_the_limit(settings)
        output = OutputProducer(settings)
        whole = Encoder(DEAD_LETTER, 1).encode(dead_letter_fields(SOURCE, letter))
        with pytest.raises(KafkaException) as refused:
            output.send(settings.topics.dlq, 0, RecordBlock.of([b"k"], [whole]))
        assert refused.value.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE
        with pytest.raises(KafkaException):  # and so does a checkpoint of what went with it
            await output.durable()
        output.close()
        output = OutputProducer(settings)
        sender, _ = sender_with(output, settings)
        await sender.send(SOURCE, BatchResult(Outputs.joined([]), [letter], 3, batch().counts))
        assert output.records_waiting == 1
        output.close()
        assert output.records_waiting == 0
        sink = LetterProducer(settings, Encoder(DEAD_LETTER, 1), 4)
        taken: list[Any] = []
        sink._produce(SOURCE, letter, lambda error, message: taken.append(message))
        sink._producer.purge()
        sink._producer.flush(5)
        assert [len(message.key()) for message in taken] == [1]
