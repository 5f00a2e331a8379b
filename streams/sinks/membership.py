"""The sink's place in its consumer group: the consumer, its commits, and what they prove.

A commit serves three ends: the group's lag can be watched, a restart skips what left no rows, and
its acceptance proves that this sink still owns its partitions (lease.py).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from routekeel.streams.settings import Settings
from routekeel.streams.sinks.core import LogPartition, PartitionState
from routekeel.streams.sinks.lease import Lease

log = logging.getLogger(__name__)

COMMIT_INTERVAL_S: Final = 1.0
COMMIT_LOST_AFTER_S: Final = 10.0
QUEUED_KBYTES_MAX: Final = 32 * 1024
FETCH_BACKOFF_MS: Final = 10
FETCH_WAIT_MS: Final = 100
POLL_INTERVAL_MAX_MS: Final = 300_000


class Membership:
    """Owns the consumer; used by the consumer's thread."""

    def __init__(self, settings: Settings, lease: Lease, clock: Callable[[], float]) -> None:
        self._lease = lease
        self._clock = clock
        self._sent: deque[tuple[float, dict[LogPartition, int]]] = deque()
        """The commits without an answer so far, and when each was sent: they are answered in order."""
        self._committed: dict[LogPartition, int] = {}
        self._commit_at = 0.0
        session_ms = int(settings.sink.session_timeout_s * 1000)
        self.consumer: Consumer = Consumer(
            settings.kafka.client_config()
            | {
                "group.id": settings.sink.group_id,
                "client.id": "routekeel-sink",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "earliest",
                "partition.assignment.strategy": "range",
                "session.timeout.ms": session_ms,
                "heartbeat.interval.ms": max(100, session_ms // 6),
                "max.poll.interval.ms": max(POLL_INTERVAL_MAX_MS, 2 * session_ms),
                "queued.max.messages.kbytes": QUEUED_KBYTES_MAX,
                # Once that much is queued, the default would have fetching rest for a whole second.
                "fetch.queue.backoff.ms": FETCH_BACKOFF_MS,
                # A partition where reading goes on waits until the fetch under way has returned.
                "fetch.wait.max.ms": FETCH_WAIT_MS,
                "topic.metadata.refresh.interval.ms": 10_000,
                "allow.auto.create.topics": False,
                "on_commit": self._answered,
                "error_cb": self._error,
                "log_level": 2,
            }
        )

    def renew(self, partitions: Mapping[LogPartition, PartitionState], now: float) -> None:
        """Commit where the lease needs another proof or there is something new to say."""
        if not partitions:
            return
        if self._sent and now - self._sent[-1][0] < COMMIT_LOST_AFTER_S:
            return
        news = now >= self._commit_at and any(
            self._committed.get(key) != state.done_offset for key, state in partitions.items()
        )
        if not news and not self._lease.due(now):
            return
        self._commit_at = now + COMMIT_INTERVAL_S
        try:
            self.consumer.commit(offsets=_commits(partitions), asynchronous=True)
            done = {key: state.done_offset for key, state in partitions.items()}
            self._sent.append((now, done))
        except KafkaException as error:
            log.debug("commit refused: %s", error)

    def commit_now(self, partitions: Mapping[LogPartition, PartitionState]) -> None:
        """A last commit before the partitions are given up; its failure costs a little reading."""
        if not partitions:
            return
        try:
            self.consumer.commit(offsets=_commits(partitions), asynchronous=False)
        except KafkaException as error:
            log.info("no last commit: %s", error)

    def _answered(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        # An answer that came late must not prove what a later commit would: each has its own time.
        sent_at, done = self._sent.popleft() if self._sent else (None, {})
        if error is not None or any(tp.error is not None for tp in partitions):
            log.debug("commit not accepted: %s", error)
            return
        self._committed.update(done)
        if sent_at is not None:
            self._lease.prove(sent_at)

    def _error(self, error: KafkaError) -> None:
        log.log(logging.ERROR if error.fatal() else logging.INFO, "Kafka: %s", error.str())


def _commits(partitions: Mapping[LogPartition, PartitionState]) -> list[TopicPartition]:
    out = []
    for (topic, partition), state in partitions.items():
        committed = state.commit()
        out.append(TopicPartition(topic, partition, committed.offset, committed.metadata()))
    return out
