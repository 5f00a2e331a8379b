"""The backend that needs no engine: the bundled model run by `mixtral_numpy`.

It is the oracle that the taps of real engines are compared with, and what the demo falls back to
where no engine is installed. Slow, exact about positions, and deterministic for a given seed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from routekeel.backends.base import Capabilities, Float32, GenerateRequest, ModelFacts, RouterChunk
from routekeel.backends.capture import ChunkBuilder, ForwardPass
from routekeel.backends.checkpoint import Checkpoint, open_checkpoint
from routekeel.backends.mixtral_numpy import Cache, Mixtral, entropy_nats, softmax
from routekeel.backends.tinymoe.vocabulary import END_OF_TEXT_ID, VOCAB_SIZE, decode, encode

CAPABILITIES = Capabilities(
    router_logits=True, token_entropy=True, router_matrix=True, router_kinds=("softmax",)
)


class ReferenceBackend:
    """`Backend` over the NumPy forward pass, for checkpoints with the byte-level vocabulary."""

    def __init__(
        self, checkpoint: Checkpoint, now_ns: Callable[[], int] = time.perf_counter_ns
    ) -> None:
        """Load the weights. Raises ValueError for another architecture or vocabulary."""
        self._model = Mixtral(checkpoint)
        if self._model.vocabulary_size != VOCAB_SIZE:
            raise ValueError("the reference engine speaks the byte-level vocabulary only")
        self._now_ns = now_ns
        self._facts = ModelFacts(
            backend="reference",
            model=checkpoint.name,
            model_revision=checkpoint.revision,
            router_kind="softmax",
            layers=tuple(range(self._model.layers)),
            experts=self._model.experts,
            top_k=self._model.top_k,
            vocabulary_size=self._model.vocabulary_size,
        )

    @property
    def facts(self) -> ModelFacts:
        """The loaded model."""
        return self._facts

    @property
    def capabilities(self) -> Capabilities:
        """Router logits, entropy and W; no control, no probe."""
        return CAPABILITIES

    def encode(self, text: str) -> list[int]:
        """The UTF-8 bytes of `text`."""
        return encode(text)

    def decode(self, token_ids: list[int]) -> str:
        """Text of `token_ids`, separators left out."""
        return decode(token_ids)

    def generate(self, request: GenerateRequest) -> Iterator[RouterChunk]:
        """Prefill in one pass, then one token a pass; see Backend.generate."""
        rng = np.random.default_rng(request.seed)
        prompt = self.encode(request.prompt)
        builder = ChunkBuilder(request, self._facts.layers, len(prompt))
        cache = Cache()
        token_ids = prompt
        for _ in range(max(1, request.max_new_tokens)):
            rows, last = self._forward(token_ids, cache)
            yield from builder.add(rows)
            token_ids = [pick(last, request.temperature, rng)]
            if token_ids[0] == END_OF_TEXT_ID:
                break
        yield from builder.finish()

    def _forward(self, token_ids: list[int], cache: Cache) -> tuple[ForwardPass, Float32]:
        began = self._now_ns()
        logits, routes = self._model.forward(token_ids, cache)
        latency_us = (self._now_ns() - began) / 1000
        rows = ForwardPass(
            np.asarray(token_ids, dtype=np.int32), routes, entropy_nats(logits), latency_us
        )
        return rows, logits[-1]

    def router_gram(self) -> Float32:
        """W Wᵀ per layer, float32 [L, E, E]."""
        return np.stack([(w := self._model.router_matrix(at)) @ w.T for at in self._facts.layers])


def pick(logits: Float32, temperature: float, rng: np.random.Generator) -> int:
    """The next token: the largest logit at temperature 0, else a draw from softmax(logits / T)."""
    if temperature == 0:
        return int(np.argmax(logits))
    weights = softmax(np.asarray(logits / temperature, dtype=np.float32)).astype(np.float64)
    return int(rng.choice(len(weights), p=weights / weights.sum()))


def open_backend(checkpoint: Path | None = None) -> ReferenceBackend:
    """The reference backend on `checkpoint`, or on the bundled model."""
    return ReferenceBackend(open_checkpoint(checkpoint))
