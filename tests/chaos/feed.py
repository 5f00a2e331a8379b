"""The input of a chaos run: valid chunks, poison in every hundredth, repeats, event times that step.

What steps is the producers' own time of a chunk (`event_time_us`), for that one chunk: an hour or five
seconds back, five seconds or 400 days ahead. The machine's clock, from which the broker and everything
else take theirs, runs on.

Everything comes from the seed, so that a run can be had again; what the log holds in the end is read
back from the log, never remembered.
"""

from __future__ import annotations

import random
import threading
import time
from typing import Any

import numpy as np
from confluent_kafka import Producer

from routekeel.schemas.codec import Encoder
from routekeel.schemas.records import ROUTER_LOGITS
from routekeel.schemas.registry import SchemaIds, subject_of
from routekeel.streams.settings import Settings

TOKENS, LAYERS, EXPERTS = 4, 3, 8
VARIETY = 512
POISON_EVERY = 100
REPEAT_SHARE = 0.01
TIME_STEP_SHARE = 0.002
FLUSH_S = 240.0
QUEUED_MAX = 2_000
BEHIND_S = 5.0
STEPS_US = (-3_600_000_000, -5_000_000, 5_000_000, 86_400_000_000 * 400)


class Feed:
    """Publishes `chunks` chunks of `sessions` sessions at about `rate` a second, in a thread."""

    def __init__(
        self, settings: Settings, seed: int, chunks: int, sessions: int, rate: float
    ) -> None:
        self._settings = settings
        self._rng = random.Random(seed)
        values = np.random.default_rng(seed)
        shape = (VARIETY, TOKENS, LAYERS, EXPERTS)
        self._logits = [a.tobytes() for a in values.normal(scale=2, size=shape).astype("<f2")]
        self._entropy = [a.tobytes() for a in values.uniform(0, 5, (VARIETY, TOKENS)).astype("<f4")]
        self._sessions = [self._new_session(n) for n in range(sessions)]
        self._chunks, self._rate = chunks, rate
        self.sent = self.poisoned = self.time_steps = 0
        self.error: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._guarded, name="feed", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    @property
    def done(self) -> bool:
        """Whether everything is acknowledged. Raises what went wrong."""
        if self.error is not None:
            raise self.error
        return not self._thread.is_alive()

    def stop(self) -> None:
        """Send no more; nothing is sent after this returns."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def join(self, timeout_s: float) -> None:
        """Wait for the end."""
        self._thread.join(timeout_s)
        assert self.done, f"the feed has sent only {self.sent} of {self._chunks}"

    def _new_session(self, number: int) -> dict[str, Any]:
        return {"session_id": f"session-{number}", "sequence": 0, "position": 0, "request": 0}

    def _guarded(self) -> None:
        try:
            self._run()
        except BaseException as error:
            self.error = error

    def _run(self) -> None:
        settings, rng = self._settings, self._rng
        ids = SchemaIds(settings.registry.url)
        schema_id = ids.register(ROUTER_LOGITS, subject_of(settings.topics.logits))
        encoder = Encoder(ROUTER_LOGITS, schema_id)
        own = {
            "linger.ms": 10,
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "log_level": 0,
            # What is sent while the broker is away fills the queue, and then the feed waits as well:
            # faults that come after so many chunks would else all come while nobody can be hit.
            "queue.buffering.max.messages": QUEUED_MAX,
        }
        producer = Producer(settings.kafka.client_config() | own)
        epoch, started = time.time_ns() // 1000, time.monotonic()
        for index in range(self._chunks):
            if self._stop.is_set():
                return
            session = rng.choice(self._sessions)
            value = encoder.encode(self._chunk(session, epoch))
            if index % POISON_EVERY == POISON_EVERY - 1:
                value = self._poison(value)
                self.poisoned += 1
            copies = 2 if rng.random() < REPEAT_SHARE else 1
            for _ in range(copies):
                self._produce(
                    producer, settings.topics.logits, session["session_id"].encode(), value
                )
            self.sent = index + 1
            if index % 200 == 199:
                producer.poll(0)
                ahead = self.sent / self._rate - (time.monotonic() - started)
                if ahead > 0:
                    self._stop.wait(ahead)
                elif (
                    ahead < -BEHIND_S
                ):  # is not made up for: the faults after it would come at once
                    started -= ahead
        deadline = time.monotonic() + FLUSH_S
        while producer.flush(1) and not self._stop.is_set():
            assert time.monotonic() < deadline, "the broker did not take everything"

    def _chunk(self, session: dict[str, Any], epoch: int) -> dict[str, Any]:
        rng = self._rng
        variant = rng.randrange(VARIETY)
        if rng.random() < 0.01:
            session["request"], session["position"] = session["request"] + 1, 0
        step_us = rng.choice(STEPS_US) if rng.random() < TIME_STEP_SHARE else 0
        self.time_steps += step_us != 0
        fields = {
            "session_id": session["session_id"], "request_id": f"request-{session['request']}",
            "model": "chaos", "model_revision": "0", "backend": "synthetic", "worker_id": "feed",
            "producer_epoch": epoch, "sequence": session["sequence"],
            "event_time_us": time.time_ns() // 1000 + step_us, "phase": "decode",
            "position_start": session["position"], "steps": TOKENS, "layers": list(range(LAYERS)),
            "experts": EXPERTS, "top_k": 2, "encoding": "F16", "logits": self._logits[variant],
            "token_entropy": self._entropy[variant], "vocabulary_size": 500,
        }  # fmt: skip
        session["sequence"] += 1
        session["position"] += TOKENS
        return fields

    def _poison(self, value: bytes) -> bytes:
        kind = self._rng.randrange(4)
        if kind == 0:
            return value[: self._rng.randrange(len(value))]
        if kind == 1:
            return b"\0\x7f\xff\xff\xff" + value[5:]
        if kind == 2:
            return self._rng.randbytes(60)
        return value[:-8] + self._rng.randbytes(8)

    def _produce(self, producer: Producer, topic: str, key: bytes, value: bytes) -> None:
        while not self._stop.is_set():
            try:
                producer.produce(topic, value, key)
                return
            except BufferError:
                producer.poll(0.1)
