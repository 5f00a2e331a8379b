"""Publishes chunks from a source that may wait, unlike an engine: paced, and never overrunning the
buffer. Ctrl-C ends it cleanly, with what was sent flushed and reported.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from routekeel.streams.errors import ServiceUnavailable
from routekeel.streams.produce.chunk import Chunk
from routekeel.streams.sdk.producer import Producer
from routekeel.streams.sdk.refusal import DELIVERY_FAILED

STALL_S = 30.0
PROGRESS_EVERY_S = 0.2
SLEEP_S_MIN = 0.002


@dataclass(frozen=True, slots=True)
class PublishResult:
    """What became of the chunks. `refused` were bad or too large, by reason; `undelivered` were
    sent, but the broker did not acknowledge them.
    """

    sent: int
    delivered: int
    undelivered: int
    refused: dict[str, int]
    seconds: float
    interrupted: bool

    @property
    def chunks_per_s(self) -> float:
        """Delivered chunks a second."""
        return self.delivered / self.seconds if self.seconds > 0 else 0.0


def publish(
    chunks: Iterable[Chunk],
    producer: Producer,
    rate: float | None = None,
    progress: Callable[[int], None] | None = None,
    *,
    on_refused: Callable[[Chunk], None] | None = None,
    stall_s: float = STALL_S,
    clock_s: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> PublishResult:
    """Send every chunk, at most `rate` a second, waiting for room in the producer's buffer.

    `progress` gets the number of chunks handled so far, a few times a second; `on_refused` each
    chunk that the producer would not take. The counts are this call's own, so the producer should
    have no other user meanwhile. Raises ServiceUnavailable where the registry does not answer or
    the broker takes nothing for `stall_s` seconds.
    """
    before = producer.stats()
    started = clock_s()
    interrupted = False
    try:
        if not producer.wait_ready(stall_s):
            raise ServiceUnavailable(
                f"the schema registry at {producer.config.registry_url} does not answer",
                "check registry.url, or start the local stack with `routekeel up`",
            )
        started = clock_s()
        handled, next_progress = 0, started
        for chunk in chunks:
            if rate is not None:
                ahead = started + handled / rate - clock_s()
                if ahead >= SLEEP_S_MIN:
                    sleep(ahead)
            _wait_for_room(producer, chunk, stall_s)
            if (
                not producer.emit_logits(chunk.session_id, chunk.logits, **chunk.fields)
                and on_refused is not None
            ):
                on_refused(chunk)
            handled += 1
            if progress is not None and clock_s() >= next_progress:
                next_progress = clock_s() + PROGRESS_EVERY_S
                progress(handled)
        if progress is not None:
            progress(handled)
        _flush(producer, stall_s)
    except KeyboardInterrupt:
        interrupted = True
        producer.flush(5.0)
    after = producer.stats()
    dropped = {name: n - before.dropped[name] for name, n in after.dropped.items()}
    delivered = after.delivered - before.delivered
    sent = after.accepted - before.accepted
    del dropped[DELIVERY_FAILED]
    return PublishResult(
        sent=sent,
        delivered=delivered,
        undelivered=sent - delivered,
        refused={name: n for name, n in dropped.items() if n},
        seconds=clock_s() - started,
        interrupted=interrupted,
    )


def _wait_for_room(producer: Producer, chunk: Chunk, stall_s: float) -> None:
    if not producer.wait_for_room(chunk.logits.nbytes, stall_s):
        raise _stalled(producer, stall_s)


def _flush(producer: Producer, stall_s: float) -> None:
    """Flush for as long as something moves."""
    waiting = producer.stats().in_flight
    while waiting:
        left = producer.flush(stall_s)
        if left >= waiting:
            raise _stalled(producer, stall_s)
        waiting = left


def _stalled(producer: Producer, stall_s: float) -> ServiceUnavailable:
    stats = producer.stats()
    return ServiceUnavailable(
        f"Kafka at {producer.config.bootstrap_servers} has taken nothing for {stall_s:g} s: "
        f"{stats.delivered} chunks were delivered, {stats.in_flight} wait",
        "check kafka.bootstrap_servers, or start the local stack with `routekeel up`",
    )
