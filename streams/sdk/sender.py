"""Numbers a producer's chunks, queues them and counts what became of each.

One lock spans taking the sequence number and handing the record over, so that numbers follow the
log's order whatever threads emit. A dropped chunk takes no number: a gap in the log means a loss
after the hand-over. Drops are told to the stream in `dropped_before` of the session's next chunk.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable
from typing import Any

from routekeel.schemas.limits import SEQUENCE_MAX
from routekeel.streams.sdk.config import SdkConfig
from routekeel.streams.sdk.encode import long
from routekeel.streams.sdk.identity import check_session, request_head
from routekeel.streams.sdk.optional import check_integer
from routekeel.streams.sdk.outbox import Outbox
from routekeel.streams.sdk.refusal import (
    CLOSED,
    DELIVERY_FAILED,
    REASONS,
    REENTRANT,
    SCHEMA_UNAVAILABLE,
    Refused,
)
from routekeel.streams.sdk.schema_id import SchemaId
from routekeel.streams.sdk.sessions import SessionCount, SessionCounts
from routekeel.streams.sdk.stats import ProducerStats

_logger = logging.getLogger("routekeel.sdk")


class Sender:
    """The state behind a Producer. `defaults` are model, model_revision and backend."""

    def __init__(
        self,
        config: SdkConfig,
        schema: SchemaId,
        defaults: tuple[str, str, str],
        worker_id: str | None,
        sessions_max: int,
        clock_us: Callable[[], int],
    ) -> None:
        self._schema = schema
        self._defaults = defaults
        self._worker_id_given = worker_id
        self._sessions_max = sessions_max
        self._clock_us = clock_us
        self._closed = False
        self._said: set[str] = set()
        self._buffer_bytes = config.buffer_bytes
        self.outbox = Outbox(config, self._delivery_failed)
        self._start_counting()

    def _start_counting(self) -> None:
        self._lock = threading.RLock()
        self._inside = False
        self._dropped = dict.fromkeys((r for r in REASONS if r != DELIVERY_FAILED), 0)
        self._sessions = SessionCounts(self._sessions_max, self._clock_us)
        self.worker_id = self._worker_id_given or f"{socket.gethostname()}:{os.getpid()}"

    def after_fork(self) -> None:
        """In the child: nothing sent, nothing queued, an epoch of its own."""
        self.outbox.reset()
        self._start_counting()
        self._schema.after_fork()

    def hand_over(
        self,
        session_id: str,
        head_of: tuple[Any, ...],
        sequence: int | None,
        body: tuple[bytes, ...],
    ) -> None:
        """Number the chunk and queue it. Raises Refused, and then nothing has changed.

        `head_of` is (request_id, model, model_revision, backend, producer_epoch), None where the
        default holds; `body` the encoded fields from event_time_us to the last nullable one.
        """
        if self._schema.value is None:
            self._schema.ask_later()
            raise Refused(SCHEMA_UNAVAILABLE, "the registry has not answered yet")
        with self._lock:
            if self._closed:
                raise Refused(CLOSED, "the producer is closed")
            if self._inside:
                raise Refused(REENTRANT, "emit_logits was called from within itself")
            self._inside = True
            try:
                sessions = self._sessions
                session = sessions.recall(session_id) if type(session_id) is str else None
                if session is None:
                    check_session(session_id)
                    session = sessions.enter(session_id)
                if session.head_of != head_of:
                    self._write_head(session, session_id, head_of)
                if sequence is None and session.sequence <= SEQUENCE_MAX:
                    sequence = session.sequence
                else:
                    given = session.sequence if sequence is None else sequence
                    sequence = check_integer("sequence", given, 0, SEQUENCE_MAX)
                dropped = session.dropped + sessions.unreported
                self.outbox.send(
                    b"".join((session.head, long(sequence), *body, long(dropped))), session.key
                )
                session.sequence = max(session.sequence, sequence + 1)
                session.dropped = sessions.unreported = 0
            finally:
                self._inside = False

    def _write_head(self, session: SessionCount, session_id: str, head_of: tuple[Any, ...]) -> None:
        request_id, model, model_revision, backend, epoch = head_of
        defaults = self._defaults
        session.head = request_head(
            self._schema.value or 0,
            session_id,
            request_id,
            defaults[0] if model is None else model,
            defaults[1] if model_revision is None else model_revision,
            defaults[2] if backend is None else backend,
            self.worker_id,
            session.epoch if epoch is None else epoch,
        )
        session.head_of = head_of

    def drop(self, session_id: Any, reason: str, message: str, *, trace: bool = False) -> None:
        """Count a refused chunk, and say the first of each reason in the log."""
        with self._lock:
            self._dropped[reason] += 1
            self._sessions.dropped(session_id if isinstance(session_id, str) else None)
        self._say(reason, message, trace)

    def _delivery_failed(self, key: bytes | None, error: str) -> None:
        with self._lock:
            self._sessions.dropped(key.decode() if key is not None else None)
        self._say(DELIVERY_FAILED, error)

    def _say(self, reason: str, message: str, trace: bool = False) -> None:
        if reason not in self._said:
            self._said.add(reason)
            _logger.warning(
                "a chunk was dropped, %s: %s; further ones are only counted",
                reason,
                message,
                exc_info=trace,
            )

    def close(self, timeout_s: float) -> int | None:
        """Refuse from now on, flush, give up the rest: how many. None where it was closed."""
        with self._lock:
            if self._closed:
                return None
            self._closed = True
        return self.outbox.close(timeout_s)

    def stats(self) -> ProducerStats:
        """The counts now, after collecting the delivery reports that are there."""
        outbox = self.outbox
        outbox.poll()
        with self._lock:
            # Reported before accepted: what is reported in between must not be missing below.
            delivered, failed, reported = outbox.delivered, outbox.failed, outbox.reported_bytes
            dropped = dict(self._dropped)
            refused = sum(dropped.values())
            dropped[DELIVERY_FAILED] = failed
            return ProducerStats(
                emitted=outbox.accepted + refused,
                accepted=outbox.accepted,
                delivered=delivered,
                in_flight=outbox.accepted - delivered - failed,
                accepted_bytes=outbox.accepted_bytes,
                in_flight_bytes=outbox.accepted_bytes - reported,
                buffer_bytes=self._buffer_bytes,
                dropped=dropped,
                sessions=len(self._sessions),
                sessions_evicted=self._sessions.evicted,
            )
