"""The librdkafka client as the SDK uses it: its settings, its log, and what a fork leaves of it.

The settings keep one promise: whatever the broker does, produce() returns at once and the memory
stays within the budget.
"""

from __future__ import annotations

import ctypes
import logging
import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaError
from confluent_kafka import Producer as KafkaProducer

from routekeel.streams.errors import ConfigurationError
from routekeel.streams.sdk.config import SdkConfig

MESSAGE_OVERHEAD_BYTES = 256
"""What librdkafka and its binding hold per queued message beside its value; the budget has it."""
DELIVERY_TIMEOUT_MS = 300_000
"""How long a chunk may wait for the broker. Long, since the oldest chunks are the ones that stay
when the budget is used up, and since every expiry is a callback on the engine's thread."""
BROKER_TIMEOUT_MS = 10_000
RECONNECT_MS_MAX = 10_000
LOG_INTERVAL_S = 60.0
LOG_KINDS_MAX = 64

_logger = logging.getLogger("routekeel.sdk.kafka")


def client_properties(config: SdkConfig) -> dict[str, Any]:
    """librdkafka's properties. `config.options` comes last, so that every one can be changed.

    murmur2_random is the partitioner of Java and aiokafka; librdkafka's own default is another.
    """
    return {
        "client.id": "routekeel-sdk",
        **config.connection(),
        "linger.ms": config.linger_ms,
        "compression.type": config.compression,
        "partitioner": "murmur2_random",
        "enable.idempotence": True,
        "message.timeout.ms": DELIVERY_TIMEOUT_MS,
        "message.max.bytes": max(config.record_bytes_max, 1000),
        # Ours binds first: it counts the overhead too. Twice, since librdkafka counts the keys.
        "queue.buffering.max.kbytes": max(1, 2 * config.buffer_bytes // 1024),
        "queue.buffering.max.messages": min(
            10_000_000, config.buffer_bytes // MESSAGE_OVERHEAD_BYTES + 1
        ),
        "socket.timeout.ms": BROKER_TIMEOUT_MS,
        "socket.connection.setup.timeout.ms": BROKER_TIMEOUT_MS,
        "reconnect.backoff.max.ms": RECONNECT_MS_MAX,
        "statistics.interval.ms": 0,
        "log.connection.close": False,
        **config.options,
    }


def open_client(config: SdkConfig, on_error: Callable[[KafkaError], None]) -> Any:
    """A started client; it connects in its own threads. Raises ConfigurationError."""
    try:
        return KafkaProducer(
            {**client_properties(config), "error_cb": on_error}, logger=ThrottledLog()
        )
    except Exception as error:  # KafkaException or ValueError, for a property it does not accept
        raise ConfigurationError(f"the Kafka client cannot be made: {error}") from error


def abandon(client: Any) -> None:
    """Keep an inherited client from ever being freed in a forked child.

    The child has the memory but not the threads: freeing would wait for them for ever, and would
    close the parent's connections.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(client))


class ThrottledLog:
    """librdkafka's log lines, at most one a minute of each kind: they come on the caller's thread.

    Has the one method that the binding calls.
    """

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._said: dict[str, float] = {}
        self._held_back = 0

    def log(self, level: int, form: str, *values: Any) -> None:
        """Pass a line on, or count it."""
        kind = str(values[0]) if values else form
        now = self._clock_s()
        if now - self._said.get(kind, -LOG_INTERVAL_S) < LOG_INTERVAL_S:
            self._held_back += 1
            return
        if len(self._said) >= LOG_KINDS_MAX:
            self._said.clear()
        self._said[kind] = now
        held_back, self._held_back = self._held_back, 0
        more = f" ({held_back} lines were held back)" if held_back else ""
        _logger.log(level, form + more.replace("%", "%%"), *values)
