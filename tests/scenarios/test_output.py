"""Outputs: what was accepted arrives in order and once, and `durable` returns when all of it has."""

from __future__ import annotations

import asyncio

import pytest
from confluent_kafka import KafkaException

from routekeel.streams.app.sender import Output
from routekeel.streams.topology.record_block import RecordBlock
from tests.scenarios.edges import LIMIT_S, Edges

ROOM = 40
MANY = 200
Records = list[tuple[bytes | None, bytes]]


async def send(
    output: Output, topic: str, partition: int, record: tuple[bytes | None, bytes]
) -> int:
    """Send as the worker does; how often there was no room."""
    refused = 0
    async with asyncio.timeout(LIMIT_S):
        while not output.send(topic, partition, RecordBlock.of([record[0]], [record[1]])):
            refused += 1
            await output.room()
    return refused


async def test_what_was_accepted_arrives_in_order_and_once(edges: Edges) -> None:
    async with edges.outputs() as outputs:
        output, refused = outputs.client(ROOM), 0
        sent: dict[int, Records] = {0: [], 1: []}
        for number in range(MANY):
            record = (None if number % 7 == 0 else b"key", b"%d" % number)
            refused += await send(output, outputs.topic, number % 2, record)
            sent[number % 2].append(record)
            if number % 50 == 49:  # a batch's end
                output.poll()
        await output.durable()
        assert refused > 0, "there was always room"
        assert {partition: outputs.log(partition) for partition in sent} == sent
        await output.durable()  # with nothing to wait for


async def test_two_producers_keep_their_orders(edges: Edges) -> None:
    async with edges.outputs() as outputs:

        async def produce(name: bytes) -> Records:
            output = outputs.client(ROOM)
            sent: Records = [(name, b"%d" % number) for number in range(MANY)]
            for record in sent:
                await send(output, outputs.topic, 2, record)
            await output.durable()
            return sent

        sent = await asyncio.gather(produce(b"one"), produce(b"two"))
        found = outputs.log(2)
        assert len(found) == 2 * MANY
        for records in sent:
            assert [record for record in found if record[0] == records[0][0]] == records


async def test_durable_says_what_the_broker_refused(edges: Edges) -> None:
    async with edges.outputs() as outputs:
        output = outputs.client(ROOM)
        assert output.send(outputs.topic, 0, RecordBlock.of([b"key"], [b"taken"]))
        await output.durable()
        outputs.refuse()
        assert output.send(outputs.topic, 0, RecordBlock.of([b"key"], [b"refused"]))
        with pytest.raises((KafkaException, OSError)):
            await output.durable()
        # It stays so: a worker ends, and what it sent since its last checkpoint comes from the next.
        with pytest.raises((KafkaException, OSError)):
            await output.durable()
        assert outputs.log(0) == [(b"key", b"taken")]
