"""From assigned partitions to where each is taken up: topic ids, tables, commits, ends of the logs.

Blocking and repeatable: it asks and changes nothing. It has clients of its own because the sink's
consumer serves one thread at a time, and that thread never stops polling.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from confluent_kafka import Consumer, KafkaException, TopicPartition

from routekeel.streams.errors import RoutekeelError
from routekeel.streams.log_bounds import log_bounds
from routekeel.streams.settings import Settings
from routekeel.streams.sinks.core import LogPartition, Start
from routekeel.streams.sinks.dedupe import TableProgress
from routekeel.streams.sinks.items import Route
from routekeel.streams.sinks.log_ids import LogIds
from routekeel.streams.sinks.offsets import Committed, parse_committed, resume_offset
from routekeel.streams.sinks.store import TableStore
from routekeel.streams.topics import admin_client
from routekeel.streams.topology.records import Source

log = logging.getLogger(__name__)

KAFKA_TIMEOUT_S: Final = 10.0


class Starts:
    """Finds out where to take partitions up."""

    def __init__(
        self,
        settings: Settings,
        routes: Mapping[str, Route],
        log_ids: LogIds,
        store: TableStore,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._group = settings.sink.group_id
        self._admin = admin_client(settings)
        self._routes = routes
        self._log_ids = log_ids
        self._store = store
        self._clock = clock

    def find(self, keys: Sequence[LogPartition]) -> dict[LogPartition, Start]:
        """Where to take up each partition.

        Raises RoutekeelError, StoreUnavailable or KafkaException where somebody does not answer.
        """
        wanted: dict[str, list[int]] = defaultdict(list)
        for topic, partition in keys:
            wanted[topic].append(partition)
        asked = [TopicPartition(*key) for key in keys]
        if not asked:
            return {}
        ids = self._log_ids.current(self._clock())
        commits, ends = self._commits(asked), self.ends(keys)
        out: dict[LogPartition, Start] = {}
        for topic, partitions in wanted.items():
            topic_id = ids.get(topic)
            if topic_id is None:
                raise RoutekeelError(f"topic {topic} does not exist", "routekeel topics")
            progress = self._store.progress(self._routes[topic], topic_id, partitions)
            for partition in partitions:
                key, tables = (topic, partition), progress[partition]
                stored = tables[self._routes[topic].anchor].stored
                offset = resume_offset(topic_id, stored, commits.get(key))
                start = Start(Source(topic, topic_id, partition), tables, offset)
                out[key] = within_log(start, ends[key])
        return out

    def _commits(self, asked: list[TopicPartition]) -> dict[LogPartition, Committed]:
        # Not the admin client's request: once it has asked a group's coordinator and the broker is
        # started anew, it never gets another answer. This consumer joins nothing.
        consumer = Consumer(
            self._settings.kafka.client_config()
            | {"group.id": self._group, "enable.auto.commit": False, "log_level": 2}
        )
        try:
            answers = consumer.committed(asked, timeout=KAFKA_TIMEOUT_S)
        finally:
            consumer.close()
        found = {}
        for answer in answers:
            if answer.error is not None:
                raise KafkaException(answer.error)
            committed = parse_committed(answer.offset, answer.metadata)
            if committed is not None:
                found[answer.topic, answer.partition] = committed
        return found

    def ends(self, keys: Sequence[LogPartition]) -> dict[LogPartition, int]:
        """The offset after the last record of each log. Raises RoutekeelError."""
        bounds = log_bounds(self._settings, keys, self._admin)
        return {key: end for key, (_, end) in bounds.items()}


def within_log(start: Start, end: int) -> Start:
    """The start, but not beyond the log's end: a log that lost its end is taken up there."""
    topic, _, partition = start.source
    if start.offset <= end:
        return start
    log.error(
        "%s[%d] ends at %d, but the table has rows up to %d: the log lost its end",
        topic, partition, end, start.offset - 1,
    )  # fmt: skip
    progress = {
        name: TableProgress(min(p.seen, end - 1), p.stored, p.sources)
        for name, p in start.progress.items()
    }
    return Start(start.source, progress, end)
