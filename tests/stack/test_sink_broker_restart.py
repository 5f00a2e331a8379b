"""Where a sink takes its partitions up is known again after the broker was killed and came back."""

from __future__ import annotations

import time
from collections.abc import Iterable

import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition

from routekeel.infra.local.stack import LocalStack
from routekeel.streams.sinks.assignment import Starts
from routekeel.streams.sinks.dedupe import TableProgress
from routekeel.streams.sinks.items import Route, routes_of
from routekeel.streams.sinks.log_ids import LogIds
from routekeel.streams.sinks.offsets import Committed
from routekeel.streams.topics import describe
from tests.stack.services import kill_service
from tests.stack.sink_feed import Feed
from tests.stack.system import MakeSystem, wait_until

pytestmark = pytest.mark.stack


class EmptyTables:
    """A store without rows."""

    def progress(
        self, route: Route, topic_id: str, partitions: Iterable[int]
    ) -> dict[int, dict[str, TableProgress]]:
        return {p: {t.name: TableProgress(-1, -1, {}) for t in route.tables} for p in partitions}


def test_starts_are_found_after_the_broker_was_killed(
    local_stack: LocalStack, system: MakeSystem
) -> None:
    settings = system("broker-restart").prepare()
    topic = settings.topics.telemetry
    Feed(settings).publish(range(5), partitions=(0,))
    topic_id = describe(settings, [topic])[topic].topic_id
    own = {"group.id": settings.sink.group_id, "enable.auto.commit": False}
    committer = Consumer(settings.kafka.client_config() | own)
    metadata = Committed(3, topic_id, -1).metadata()
    committer.commit(offsets=[TopicPartition(topic, 0, 3, metadata=metadata)], asynchronous=False)
    committer.close()
    routes = routes_of(settings)
    log_ids = LogIds(settings, list(routes), time.monotonic)
    starts = Starts(settings, routes, log_ids, EmptyTables(), time.monotonic)  # type: ignore[arg-type]
    keys = [(topic, 0), (topic, 1)]
    before = starts.find(keys)
    assert [before[key].offset for key in keys] == [3, 0]
    kill_service(local_stack, "kafka")
    local_stack.up()

    def coordinator_answers() -> bool:
        asker = Consumer(settings.kafka.client_config() | own)
        try:
            return bool(asker.committed([TopicPartition(topic, 0)], timeout=5))
        except KafkaException:
            return False  # it is loading
        finally:
            asker.close()

    wait_until(coordinator_answers, "the group's coordinator", timeout_s=60)
    assert starts.find(keys) == before
