"""The producer: publishes router logits from an inference engine's own thread.

How it works. emit_logits checks and packs the logits, writes the record from cached segments, hands
it to librdkafka and returns; there is no Python thread that could hold the interpreter while the
engine wants it. librdkafka's threads batch, compress and send. What cannot be sent is dropped, the
newest first, counted by reason, and told to the stream in `dropped_before` of the next chunk sent.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Self, Unpack

import numpy as np
from prometheus_client.registry import CollectorRegistry

from routekeel.schemas.limits import STEPS_MAX, VALUES_MAX
from routekeel.streams.sdk import lifetime
from routekeel.streams.sdk.config import SdkConfig, SdkOptions
from routekeel.streams.sdk.identity import chunk_moment
from routekeel.streams.sdk.intake import pack_logits
from routekeel.streams.sdk.layout import Layouts, Ranks
from routekeel.streams.sdk.metrics import collector_of
from routekeel.streams.sdk.optional import (
    OptionalFields,
    optional_tail,
)
from routekeel.streams.sdk.refusal import (
    INTERNAL_ERROR,
    Refused,
)
from routekeel.streams.sdk.schema_id import SchemaId, ask_registry
from routekeel.streams.sdk.sender import Sender
from routekeel.streams.sdk.stats import ProducerStats

SESSIONS_MAX = 65_536
HEADER_BYTES_ESTIMATE = 4096
"""More than the fields beside the logits take, unless token columns or a probe are long."""
_ELEMENT_BYTES = {"F16": 2, "F32": 4, "TOPM_F16": 0}
_logger = logging.getLogger("routekeel.sdk")


class Producer:
    """Publishes chunks of router logits; made once per worker process, shared by its threads.

    `model`, `model_revision`, `backend`, `layers`, `top_k` and `router_kind` are what emit_logits
    takes where a call does not say; `ranks` is the worker's place in a distributed engine. Every
    field of SdkConfig may be given as a keyword argument, over the ROUTEKEEL_* variables.

    Making one asks the registry for the schema id, within the registry's timeout (`schema_id` saves
    that) and may raise ConfigurationError. After that only flush, close and wait_ready ever wait.
    Counters are exported where `metrics_registry` is given.

    >>> import numpy as np
    >>> with Producer(bootstrap_servers="127.0.0.1:1", schema_id=1, model="m", backend="b",
    ...               top_k=2, worker_id="w0") as producer:
    ...     producer.emit_logits("s", np.zeros((1, 4, 8), np.float16), position_start=0)
    ...     producer.emit_logits("s", np.full((1, 4, 8), np.nan), position_start=1)
    ...     producer.stats().accepted, producer.stats().dropped["non_finite"]
    ...     producer.close(timeout_s=0)
    True
    False
    (1, 1)
    1
    """

    def __init__(
        self,
        config: SdkConfig | None = None,
        *,
        model: str = "",
        model_revision: str = "",
        backend: str = "",
        worker_id: str | None = None,
        layers: Sequence[int] | None = None,
        top_k: int | None = None,
        router_kind: str = "softmax",
        ranks: Ranks | tuple[int, int, int, int] = (0, 0, 0, 0),
        schema_id: int | None = None,
        sessions_max: int = SESSIONS_MAX,
        metrics_registry: CollectorRegistry | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
        **settings: Unpack[SdkOptions],
    ) -> None:
        config = config or SdkConfig.from_environ(**settings)
        self.config = config
        self._layers = None if layers is None else tuple(layers)
        self._top_k = top_k
        self._router_kind = router_kind
        self._clock_ns = clock_ns
        self._encoding, self._top_m = config.encoding, config.top_m
        self._element_bytes = _ELEMENT_BYTES[config.encoding]
        self._layouts = Layouts(config.encoding, config.top_m, Ranks(*ranks))
        self._schema = SchemaId(lambda: ask_registry(config), schema_id)
        self._schema.ask_now()
        self._sender = Sender(
            config,
            self._schema,
            (model, model_revision, backend),
            worker_id,
            sessions_max,
            lambda: clock_ns() // 1000,
        )
        self._outbox = self._sender.outbox
        self._collector = collector_of(metrics_registry) if metrics_registry is not None else None
        if self._collector is not None:
            self._collector.add(self)
        self._handle = lifetime.watch(self.close, self._sender.after_fork)

    def emit_logits(
        self,
        session_id: str,
        logits: Any,
        *,
        position_start: int,
        request_id: str = "",
        phase: str = "decode",
        model: str | None = None,
        model_revision: str | None = None,
        backend: str | None = None,
        layers: Sequence[int] | None = None,
        top_k: int | None = None,
        router_kind: str | None = None,
        event_time_us: int | None = None,
        sequence: int | None = None,
        producer_epoch: int | None = None,
        **optional: Unpack[OptionalFields],
    ) -> bool:
        """Publish the logits of T consecutive tokens; True where they were handed over.

        Never raises for bad data, never waits: what cannot be sent is dropped and counted under one
        of `refusal.REASONS`, and each reason is explained in the log once.

        session_id: 1…512 bytes of UTF-8, not starting with NUL; the record's key.
        logits: real numbers [T, L, E] before the softmax, finite, in host memory: NumPy, torch CPU,
            MLX, bfloat16 too. Packed as float16 or float32 by `encoding`. Read before the return.
        position_start: position in the request of the first token, ≥ 0.
        phase: "decode" or "prefill".
        layers: L ascending layer ids (default 0…L−1); passing the same tuple again is cheapest.
        event_time_us: when the last token was computed, µs since 1970 (default: now).
        sequence, producer_epoch: the caller's own count, for sources that repeat themselves (a
            file); a repeated pair changes nothing in the stream.
        optional: see OptionalFields.
        """
        sent = False
        try:
            if type(logits) is np.ndarray:
                self._outbox.make_room(logits.size * self._element_bytes)
            shape, data = pack_logits(logits, self._encoding, self._top_m)
            self._sender.hand_over(
                session_id,
                (request_id, model, model_revision, backend, producer_epoch),
                sequence,
                (
                    chunk_moment(
                        self._clock_ns() // 1000 if event_time_us is None else event_time_us,
                        phase,
                        position_start,
                    ),
                    self._layouts.get(
                        shape,
                        self._layers if layers is None else layers,
                        self._top_k if top_k is None else top_k,
                        self._router_kind if router_kind is None else router_kind,
                        len(data),
                    ),
                    data,
                    optional_tail(shape, optional),
                ),
            )
            sent = True
        except Refused as refused:
            self._sender.drop(session_id, refused.reason, refused.message)
        except Exception as error:
            self._sender.drop(session_id, INTERNAL_ERROR, repr(error), trace=True)
        self._outbox.poll_sometimes()
        return sent

    def steps_max(self, layers: int, experts: int) -> int:
        """How many tokens of L = `layers` and E = `experts` fit one record; longer prefills are
        emitted in slices.
        """
        values = layers * experts
        fitting = (self.config.record_bytes_max - HEADER_BYTES_ESTIMATE) // (
            values * (self._element_bytes or 2)
        )
        return max(1, min(STEPS_MAX, VALUES_MAX // values, fitting))

    def wait_ready(self, timeout_s: float) -> bool:
        """Wait for the schema id, for sources that would rather wait than drop (a file)."""
        deadline = time.monotonic() + timeout_s
        while not self._schema.ask_now():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(0.2, left))
        return True

    def wait_for_room(self, logits_bytes: int, timeout_s: float) -> bool:
        """Wait until a chunk with that many bytes of logits fits the buffer; False where the broker
        took nothing for so long. A chunk larger than the whole buffer waits until that is empty.
        """
        return self._outbox.wait_for_room(logits_bytes + HEADER_BYTES_ESTIMATE, timeout_s)

    def flush(self, timeout_s: float) -> int:
        """Wait until the broker has acknowledged everything; how many chunks still wait."""
        return self._outbox.flush(timeout_s)

    def close(self, timeout_s: float = 5.0) -> int:
        """Flush and end; how many chunks were given up (they count as delivery_failed).

        Emitting afterwards is counted as dropped. A second close does nothing.
        """
        given_up = self._sender.close(timeout_s)
        if given_up is None:
            return 0
        lifetime.forget(self._handle)
        if self._collector is not None:
            self._collector.retire(self)
        return given_up

    def stats(self) -> ProducerStats:
        """The counts now, after collecting the delivery reports that are there."""
        return self._sender.stats()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
