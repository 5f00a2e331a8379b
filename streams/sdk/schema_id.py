"""The schema id of RouterLogits: asked for once, and never waited for while the engine works.

At construction the registry is asked within its timeout: a worker starts up anyway then. If it does
not answer, a thread that lives for one HTTP call asks again, at growing intervals and only while
chunks come; these are counted as schema_unavailable. No thread stays once the id is known.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from routekeel.schemas.records import ROUTER_LOGITS
from routekeel.schemas.registry import SchemaIds, subject_of
from routekeel.streams.sdk.config import SdkConfig

RETRY_S_MIN = 1.0
RETRY_S_MAX = 30.0
_logger = logging.getLogger("routekeel.sdk")


def ask_registry(config: SdkConfig) -> int:
    """The id, registering the schema where it is new. Raises RegistryUnavailable, SchemaRefused."""
    registry = SchemaIds(
        config.registry_url,
        user=config.registry_username or "",
        password=config.registry_password or "",
        ca_location=config.ssl_ca_file or "",
        timeout_s=config.registry_timeout_s,
        retries=0,
    )
    return registry.register(ROUTER_LOGITS, subject_of(config.topic))


class SchemaId:
    """Holds the id once it is known. `ask` is called without arguments and may raise anything."""

    def __init__(
        self,
        ask: Callable[[], int],
        known: int | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.value = known
        self._ask = ask
        self._clock_s = clock_s
        self._asking: threading.Thread | None = None
        self._wait_s = RETRY_S_MIN
        self._next_s = 0.0
        self._said = ""

    def ask_now(self) -> bool:
        """Ask on this thread, within the registry's timeout. True where the id is known."""
        if self.value is None:
            try:
                self.value = self._ask()
            except Exception as error:  # unreachable, refused, or a broken answer: all are retried
                self._failed(error)
        return self.value is not None

    def ask_later(self) -> None:
        """Start a thread for one question where none is under way and the interval has passed."""
        if self._asking is not None and self._asking.is_alive():
            return
        if self._clock_s() < self._next_s:
            return
        self._asking = threading.Thread(
            target=self.ask_now, name="routekeel-schema-id", daemon=True
        )
        self._asking.start()

    def after_fork(self) -> None:
        """In the child: the thread that was asking is not here."""
        self._asking = None

    def _failed(self, error: Exception) -> None:
        self._next_s = self._clock_s() + self._wait_s
        self._wait_s = min(2 * self._wait_s, RETRY_S_MAX)
        if str(error) != self._said:
            self._said = str(error)
            _logger.warning("chunks are dropped until the schema id is known: %s", error)
