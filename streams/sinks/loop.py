"""The sink's one consuming thread: polls, hands batches to inserting threads, keeps the lease.

It never waits for ClickHouse: when too much is held, reading pauses and polling goes on, so the
group keeps its member. Only giving partitions up waits, for what is in flight.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import groupby
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from routekeel.streams.errors import RoutekeelError
from routekeel.streams.settings import Settings
from routekeel.streams.sinks.assignment import Starts
from routekeel.streams.sinks.backoff import Backoff
from routekeel.streams.sinks.core import LogPartition, SinkCore, Start
from routekeel.streams.sinks.driver import Driven, Edge, drive
from routekeel.streams.sinks.items import Route
from routekeel.streams.sinks.lease import Lease
from routekeel.streams.sinks.membership import Membership
from routekeel.streams.sinks.metrics import SinkMetrics
from routekeel.streams.sinks.progress import SinkProgress, Totals
from routekeel.streams.sinks.store import StoreUnavailable
from routekeel.streams.sinks.watch import IdleWatch, Watch
from routekeel.streams.sinks.work import BatchWork
from routekeel.streams.topology.records import LogBatch

log = logging.getLogger(__name__)

INSERT_THREADS: Final = 4
CONSUME_RECORDS_MAX: Final = 2000
POLL_S: Final = 0.1
POLL_BUSY_S: Final = 0.02


class SinkLoop:
    """One sink from subscription to the last commit. Used once."""

    def __init__(
        self,
        settings: Settings,
        routes: dict[str, Route],
        core: SinkCore,
        edge: Edge,
        starts: Starts,
        lease: Lease,
        metrics: SinkMetrics,
        totals: Totals,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._routes, self._core, self._edge = settings, routes, core, edge
        self._starts, self._lease = starts, lease
        self._metrics, self._totals, self._clock = metrics, totals, clock
        self._jitter = random.Random()
        self._pool = ThreadPoolExecutor(INSERT_THREADS + 1, thread_name_prefix="sink")
        self._give_up = threading.Event()
        self._batches: set[Future[Driven]] = set()
        self._wanted: list[LogPartition] | None = None
        self._starting: Future[dict[LogPartition, Start]] | None = None
        self._start_at = self._decode_at = 0.0
        self._settled = False  # whether the present assignment has been taken up
        self._start_backoff = Backoff(self._jitter)
        self._decode_backoff = Backoff(self._jitter)
        self._membership = Membership(settings, lease, clock)
        self._consumer: Consumer = self._membership.consumer
        self._watch = Watch(core, self._consumer, metrics, totals)
        self._idle = IdleWatch(starts, self._pool, clock())

    def run(
        self,
        stop: threading.Event,
        until_idle_s: float | None,
        on_progress: Callable[[SinkProgress], None] | None,
    ) -> bool:
        """Work until told to stop; True when it ended because it was idle so long."""
        self._consumer.subscribe(
            list(self._routes),
            on_assign=self._assigned,
            on_revoke=lambda _, __: self._release(commit=True),
            on_lost=lambda _, __: self._release(commit=False),
        )
        try:
            while not stop.is_set():
                self._turn()
                now = self._clock()
                self._watch.observe(now, self._settled, on_progress)
                if not self._settled or self._core.waiting:
                    self._idle.active(now)
                elif until_idle_s is not None and self._idle.idle(
                    self._core.partitions, now, until_idle_s
                ):
                    return True
            return False
        finally:
            self._release(commit=True)
            self._consumer.close()
            self._pool.shutdown()

    def _turn(self) -> None:
        self._totals.looped_at = self._clock()
        self._receive(self._read())
        self._collect()
        self._take_up()
        now = self._clock()
        if now >= self._decode_at:
            self._decode(now)
        self._start_batches(now)
        self._membership.renew(self._core.partitions, now)
        change = self._core.pause_change()
        if change is not None:
            self._pause(change)

    # --- Records in

    def _read(self) -> list[Message]:
        """What has been fetched; with nearly too much held, one record when a batch has ended.

        A pause throws away what was fetched ahead, and the store would rest until it has come again:
        so it is for a store that is away, not for one that is at work.
        """
        count, timeout_s = CONSUME_RECORDS_MAX, POLL_BUSY_S if self._batches else POLL_S
        if self._batches and self._core.is_nearly_full:
            wait(self._batches, POLL_BUSY_S, FIRST_COMPLETED)
            count, timeout_s = 1, 0.0
        messages: list[Message] = self._consumer.consume(count, timeout_s)
        return messages

    def _receive(self, messages: list[Message]) -> None:
        now, wall_ms = self._clock(), int(time.time() * 1000)
        astray = False
        for (topic, partition, error), run in groupby(messages, _place):
            if error is not None:
                self._complain(error)
                continue
            records = _records(list(run), wall_ms)
            self._metrics.records.labels(topic).inc(len(records))
            self._totals.records += len(records)
            astray |= not self._core.receive((topic, partition), records, now)
        if messages:
            self._idle.active(now)
        if astray:
            self._restart("offsets went back: the log was replaced or lost its end")

    def _complain(self, error: KafkaError) -> None:
        if error.code() != KafkaError._PARTITION_EOF:
            self._totals.last_error = error.str()
            log.warning("Kafka: %s", error.str())

    def _decode(self, now: float) -> None:
        trouble = self._core.decode()
        if not trouble:
            self._decode_backoff.reset()
            return
        self._metrics.registry_failures.inc()
        self._totals.last_error = trouble
        delay_s = self._decode_backoff.next_s()
        self._decode_at = now + delay_s
        log.warning("the schema registry does not answer (%s); again in %.1f s", trouble, delay_s)

    def _pause(self, pause: bool) -> None:
        partitions = [TopicPartition(*key) for key in self._core.partitions]
        (self._consumer.pause if pause else self._consumer.resume)(partitions)
        self._metrics.paused.set(pause)
        log.info("reading %s", "pauses: too much is held" if pause else "goes on")

    # --- Batches

    def _start_batches(self, now: float) -> None:
        if len(self._batches) >= INSERT_THREADS:
            return
        for work in self._core.ready(now):
            future = self._pool.submit(
                drive,
                work,
                self._edge,
                self._lease,
                Backoff(self._jitter),
                self._give_up,
                self._clock,
                self._failed,
            )
            self._batches.add(future)
            if len(self._batches) >= INSERT_THREADS:
                return

    def _failed(self, message: str) -> None:
        self._totals.last_error = message
        log.warning("trying again: %s", message)

    def _collect(self) -> None:
        """Take in the batches that have ended. Raises what went wrong inside one."""
        recreated = ""
        for future in [future for future in self._batches if future.done()]:
            self._batches.discard(future)
            driven = future.result()
            work = driven.work
            if work.recreated:
                recreated = work.last_error
            if driven.finished:
                self._finished(work)
        if recreated:
            self._metrics.recreated.inc()
            self._restart(recreated)

    def _finished(self, work: BatchWork) -> None:
        self._core.finished(work)
        self._totals.count(work.counts)
        self._totals.last_error = work.last_error
        self._metrics.count(work.batch.source.topic, work.counts)
        self._totals.progress_at = self._clock()
        self._idle.active(self._totals.progress_at)

    # --- Assignment

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Fetch nothing before it is known where to begin."""
        self._wanted = [(tp.topic, tp.partition) for tp in partitions]
        self._starting, self._start_at = None, 0.0
        consumer.assign([])
        log.info("assigned %d partitions", len(partitions))

    def _take_up(self) -> None:
        """Find out where to begin, in a thread; when that is known, begin."""
        if self._wanted is None or self._clock() < self._start_at:
            return
        if self._starting is None:
            self._starting = self._pool.submit(self._starts.find, self._wanted)
        if not self._starting.done():
            return
        future, self._starting = self._starting, None
        try:
            starts = future.result()
        except (RoutekeelError, StoreUnavailable, KafkaException) as error:
            delay_s = self._start_backoff.next_s()
            self._start_at = self._clock() + delay_s
            self._totals.last_error = str(error)
            log.warning("cannot begin yet (%s); again in %.1f s", error, delay_s)
            return
        self._wanted = None
        self._settled = self._totals.ready = True
        self._start_backoff.reset()
        self._core.assign(starts)
        self._consumer.assign([TopicPartition(*key, start.offset) for key, start in starts.items()])
        self._metrics.assignments.inc()
        self._totals.progress_at = self._clock()
        self._idle.active(self._totals.progress_at)

    def _release(self, commit: bool) -> None:
        """Give the partitions up: nothing is in flight afterwards, nothing is held."""
        self._give_up.set()
        wait(self._batches)
        if self._starting is not None:
            wait([self._starting])
        for future in self._batches:
            if future.exception() is None and future.result().finished:
                self._finished(future.result().work)
        self._batches.clear()
        self._give_up = threading.Event()
        self._settled = self._totals.ready = False
        if commit:
            self._membership.commit_now(self._core.partitions)
        self._core.clear()
        self._lease.drop()
        self._wanted = self._starting = None

    def _restart(self, why: str) -> None:
        """Take the same partitions up again from what the tables say now."""
        log.warning("starting over: %s", why)
        keys = list(self._core.partitions)
        self._release(commit=False)
        self._consumer.assign([])
        self._wanted = keys


def _place(message: Message) -> tuple[str, int, KafkaError | None]:
    """Where a message comes from, and the error that it is instead of a record."""
    return message.topic(), message.partition(), message.error()


def _records(messages: list[Message], wall_ms: int) -> LogBatch:
    """Messages of one partition as columns; one without a time gets the present one."""
    return LogBatch(
        list(map(Message.offset, messages)),
        [
            time_ms if kind and time_ms >= 0 else wall_ms
            for kind, time_ms in map(Message.timestamp, messages)
        ],
        list(map(Message.key, messages)),
        list(map(Message.value, messages)),
        [headers or () for headers in map(Message.headers, messages)],
    )
