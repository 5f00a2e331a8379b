"""The way out: a byte budget, librdkafka, and the delivery reports that give the budget back.

Bytes in flight are two counters that only grow: accepted (written under the producer's lock) and
reported (written by the delivery reports, which run on whichever thread polls, one at a time). So
the hot path takes no lock of its own.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from routekeel.streams.sdk.client import MESSAGE_OVERHEAD_BYTES, abandon, open_client
from routekeel.streams.sdk.config import SdkConfig
from routekeel.streams.sdk.refusal import (
    BUFFER_FULL,
    CLIENT_FAILED,
    QUEUE_FULL,
    TOO_LARGE,
    Refused,
)

POLL_EVERY_SENDS = 16
"""Reports cost about 4 µs each on the polling thread: few at a time keep the longest call short."""
POLL_EVERY_S = 0.1
FULL_POLL_EVERY_S = 0.001
FLUSH_SLICE_S = 0.2
_logger = logging.getLogger("routekeel.sdk")


class Outbox:
    """One topic's queue. `on_failed(key, error)` hears of every accepted record that was lost."""

    def __init__(
        self,
        config: SdkConfig,
        on_failed: Callable[[bytes | None, str], None],
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._topic = config.topic
        self._budget = config.buffer_bytes
        self._largest = config.record_bytes_max
        self._on_failed = on_failed
        self._clock_s = clock_s
        self._client: Any = None
        self._fatal = ""
        self.reset()
        self._open()

    def reset(self) -> None:
        """Start counting anew, without a client: the state of a forked child."""
        if self._client is not None:
            abandon(self._client)
        self._client = None
        self._poll_lock = threading.Lock()
        self._since_poll = 0
        self._polled_s = 0.0
        self.accepted = self.accepted_bytes = 0
        self.delivered = self.failed = self.reported_bytes = 0

    @property
    def in_flight_bytes(self) -> int:
        """Bytes that wait for their delivery report, the overhead per message included."""
        return self.accepted_bytes - self.reported_bytes

    def make_room(self, least_bytes: int) -> None:
        """Raise Refused where a record of at least this size cannot fit; look for reports first."""
        if self.accepted_bytes - self.reported_bytes + least_bytes <= self._budget:
            return
        if self._clock_s() - self._polled_s >= FULL_POLL_EVERY_S:
            self.poll()
            if self.accepted_bytes - self.reported_bytes + least_bytes <= self._budget:
                return
        raise Refused(BUFFER_FULL, f"{self._budget} bytes wait for the broker already")

    def send(self, value: bytes, key: bytes) -> None:
        """Hand a record to librdkafka, which copies it; under the sender's lock. Raises Refused."""
        size = len(value) + MESSAGE_OVERHEAD_BYTES
        if len(value) > self._largest:
            raise Refused(
                TOO_LARGE,
                f"the record has {len(value)} bytes, at most {self._largest}: send fewer tokens",
            )
        if self.accepted_bytes - self.reported_bytes + size > self._budget:
            raise Refused(BUFFER_FULL, f"{self._budget} bytes wait for the broker already")
        if self._client is None:
            self._open()
        try:
            self._client.produce(self._topic, value, key, -1, self._on_delivery)
        except BufferError:
            raise Refused(QUEUE_FULL, "librdkafka's queue is full") from None
        except KafkaException as error:
            reason = error.args[0]
            too_large = reason.code() == KafkaError.MSG_SIZE_TOO_LARGE
            raise Refused(TOO_LARGE if too_large else CLIENT_FAILED, str(reason)) from None
        self.accepted += 1
        self.accepted_bytes += size
        self._since_poll += 1

    def poll_sometimes(self) -> None:
        """Collect delivery reports, every few records or tenths of a second. Never waits."""
        if self._since_poll >= POLL_EVERY_SENDS or self._clock_s() - self._polled_s >= POLL_EVERY_S:
            self.poll()

    def poll(self, wait_s: float = 0.0) -> None:
        """Collect the delivery reports that are there, unless another thread is at it.

        With `wait_s` wait that long for the first one: for callers that may wait.
        """
        if not self._poll_lock.acquire(blocking=False):
            return
        try:
            self._since_poll = 0
            self._polled_s = self._clock_s()
            if self._client is not None:
                self._client.poll(wait_s)
                if self._fatal:
                    self._replace()
        except Exception:  # whatever a callback met, the engine goes on
            _logger.exception("collecting the delivery reports failed")
        finally:
            self._poll_lock.release()

    def wait_for_room(self, size: int, timeout_s: float) -> bool:
        """Wait for delivery reports until `size` bytes fit; False after that long without any."""
        size = min(size + MESSAGE_OVERHEAD_BYTES, self._budget)
        reported, since_s = self.reported_bytes, self._clock_s()
        while self.in_flight_bytes + size > self._budget:
            self.poll(FLUSH_SLICE_S)
            if self.reported_bytes != reported:
                reported, since_s = self.reported_bytes, self._clock_s()
            elif self._clock_s() - since_s > timeout_s:
                return False
        return True

    def flush(self, timeout_s: float) -> int:
        """Wait until everything is reported, at most that long; how many records still wait."""
        deadline = self._clock_s() + timeout_s
        if not self._poll_lock.acquire(timeout=max(0.0, timeout_s)):
            return self.accepted - self.delivered - self.failed
        try:
            if self._client is not None:
                # In slices, so that Ctrl-C gets through.
                left = timeout_s
                while self._client.flush(max(0.0, min(left, FLUSH_SLICE_S))) and left > 0:
                    left = deadline - self._clock_s()
        finally:
            self._poll_lock.release()
        return self.accepted - self.delivered - self.failed

    def close(self, timeout_s: float) -> int:
        """Flush, give up what is left (each is reported as failed), and free the client."""
        waiting = self.flush(timeout_s)
        with self._poll_lock:
            self._give_up()
        return waiting

    def _open(self) -> None:
        self._client = open_client(self._config, self._on_error)
        self._fatal = ""

    def _give_up(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.purge()
            client.flush(1.0)

    def _replace(self) -> None:
        _logger.error("the Kafka client failed for good and is made anew: %s", self._fatal)
        self._fatal = ""
        self._give_up()

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = str(error)
        else:
            _logger.debug("Kafka: %s", error)

    def _on_delivery(self, error: KafkaError | None, message: Any) -> None:
        self.reported_bytes += len(message) + MESSAGE_OVERHEAD_BYTES
        if error is None:
            self.delivered += 1
        else:
            self.failed += 1
            self._on_failed(message.key(), str(error))
