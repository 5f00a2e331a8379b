"""Tells a gap that reading again closes from offsets that never had a record.

Faust and rebalances lose a fetched batch now and then: a seek brings it back, or another gap comes. A
transaction's marker takes an offset and is no record: the same gap comes after every seek. Which of the two
it is, the log is asked by a consumer of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from confluent_kafka import Consumer, TopicPartition

from routekeel.streams.settings import Settings

LOOK_S = 5.0
FirstRecord = Callable[[int, int], Awaitable[int | None]]
"""(partition, offset) → the offset of the first record at or after it; None where none comes."""


class GapWatch:
    """Looks at the log where the same gap comes twice in a row."""

    def __init__(self, first_record: FirstRecord) -> None:
        self._first_record = first_record
        self._last: tuple[int, int, int] | None = None

    async def is_hole(self, partition: int, applied: int, first: int) -> bool:
        """After `applied` came `first`: whether the log has no record between."""
        gap = (partition, applied, first)
        again, self._last = gap == self._last, gap
        if not again:
            return False
        found = await self._first_record(partition, applied + 1)
        return found is not None and found >= first


def first_record_of(settings: Settings) -> FirstRecord:
    """Asks the logits topic."""

    def look(partition: int, offset: int) -> int | None:
        group = {"group.id": f"{settings.worker.app_id}-look", "enable.auto.commit": False}
        consumer = Consumer(settings.kafka.client_config() | group)
        try:
            consumer.assign([TopicPartition(settings.topics.logits, partition, offset)])
            message = consumer.poll(LOOK_S)
            return None if message is None or message.error() else message.offset()
        finally:
            consumer.close()

    async def first_record(partition: int, offset: int) -> int | None:
        return await asyncio.get_running_loop().run_in_executor(None, look, partition, offset)

    return first_record
