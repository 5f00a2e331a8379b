"""Watches a running sink: lag and health for its pages, and whether there is nothing more to do."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from typing import Final

from confluent_kafka import Consumer, TopicPartition

from routekeel.streams.errors import RoutekeelError
from routekeel.streams.sinks.assignment import Starts
from routekeel.streams.sinks.core import LogPartition, PartitionState, SinkCore
from routekeel.streams.sinks.metrics import SinkMetrics
from routekeel.streams.sinks.progress import SinkProgress, Totals

log = logging.getLogger(__name__)

OBSERVE_S: Final = 0.5


class Watch:
    """Used by the consumer's thread, once a turn."""

    def __init__(
        self, core: SinkCore, consumer: Consumer, metrics: SinkMetrics, totals: Totals
    ) -> None:
        self._core = core
        self._consumer = consumer
        self._metrics = metrics
        self._totals = totals
        self._observe_at = 0.0
        self._shown: set[LogPartition] = set()

    def observe(
        self, now: float, settled: bool, on_progress: Callable[[SinkProgress], None] | None
    ) -> None:
        """Bring metrics and health up to date, not more often than is of use."""
        if now < self._observe_at:
            return
        self._observe_at = now + OBSERVE_S
        totals, core = self._totals, self._core
        for gone in self._shown - set(core.partitions):
            self._metrics.lag.remove(*gone)
        self._shown = set(core.partitions)
        lag = sum(self._lag(key, state) for key, state in core.partitions.items())
        held = core.held_bytes
        self._metrics.held_bytes.set(held)
        totals.busy = not settled or core.waiting > 0
        totals.lag, totals.partitions = lag, len(core.partitions)
        if not totals.busy:
            totals.progress_at = now
        if on_progress is not None:
            on_progress(totals.progress(held))

    def _lag(self, key: LogPartition, state: PartitionState) -> int:
        """Records not in place yet, by what the last fetch said of the log's end."""
        topic, partition = key
        marks = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)
        lag = max(0, marks[1] - state.done_offset) if marks and marks[1] >= 0 else 0
        self._metrics.lag.labels(topic, partition).set(lag)
        if state.offsets_missing:
            log.error("%s[%d]: %d offsets are gone", topic, partition, state.offsets_missing)
            self._metrics.offsets_missing.inc(state.offsets_missing)
            state.offsets_missing = 0
        return lag


class IdleWatch:
    """Whether everything is in place, to the ends of the logs, and nothing came for so long."""

    def __init__(self, starts: Starts, pool: Executor, now: float) -> None:
        self._starts = starts
        self._pool = pool
        self._active_at = now
        self._ends: Future[dict[LogPartition, int]] | None = None

    def active(self, now: float) -> None:
        """Something happened: the wait begins anew."""
        self._active_at = now
        self._ends = None

    def idle(
        self, partitions: Mapping[LogPartition, PartitionState], now: float, seconds: float
    ) -> bool:
        """Whether it may end now. The brokers are asked for the ends, in another thread."""
        if now - self._active_at < seconds:
            return False
        if self._ends is None:
            self._ends = self._pool.submit(self._starts.ends, list(partitions))
            return False
        if not self._ends.done():
            return False
        future, self._ends = self._ends, None
        try:
            ends = future.result()
        except RoutekeelError as error:
            log.info("the ends of the logs are not known: %s", error)
            self._active_at = now
            return False
        if all(ends.get(key, 0) <= state.done_offset for key, state in partitions.items()):
            return True
        self._active_at = now
        return False
