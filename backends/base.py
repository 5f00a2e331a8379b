"""What every inference engine offers here: its facts, its declared capabilities, and its chunks.

A backend says what it can and cannot see instead of guessing; whoever asks for something undeclared
gets a CapabilityError, never a made-up number.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
Phase = Literal["prefill", "decode"]

CHUNK_TOKENS = 8
CHUNK_TOKENS_MAX = 4096  # the limit of the RouterLogits record


class BackendError(Exception):
    """Base of what a backend raises on purpose."""


class CapabilityError(BackendError):
    """Something was asked of an engine that does not declare it."""


@dataclass(frozen=True)
class Capabilities:
    """What an engine really gives. False means unavailable downstream (NULL), not zero.

    router_logits   raw logits of the router, before softmax and top-k
    token_entropy   exact entropy over the whole vocabulary, not a bound from the top few
    hidden_state    the router's input, per token
    router_matrix   W, hence `router_gram()`
    probe           measured perturbations of the hidden state (G probe, L⊥)
    control         replaced router logits are applied inside the engine
    embeddings      sentence embeddings, for paraphrase dispersion
    router_kinds    the router kinds that the tap understands: softmax, sigmoid, sigmoid_bias
    """

    router_logits: bool = False
    token_entropy: bool = False
    hidden_state: bool = False
    router_matrix: bool = False
    probe: bool = False
    control: bool = False
    embeddings: bool = False
    router_kinds: tuple[str, ...] = ()

    def require(self, name: str, backend: str) -> None:
        """Raise CapabilityError unless the capability `name` is declared."""
        if not getattr(self, name):
            raise CapabilityError(f"the {backend} backend has no {name}: it does not declare it")


@dataclass(frozen=True)
class ModelFacts:
    """What stays the same over all chunks of a loaded model.

    `layers` are the ids of the layers that have a router, ascending: the order of axis 1 of
    `RouterChunk.logits`. `model_revision` is the first 12 hex digits of the weights' SHA-256.
    """

    backend: str
    model: str
    model_revision: str
    router_kind: str
    layers: tuple[int, ...]
    experts: int
    top_k: int
    vocabulary_size: int


@dataclass(frozen=True)
class GenerateRequest:
    """One prompt of one session. Temperature 0 is greedy; otherwise `seed` decides the draws.

    Generation ends after `max_new_tokens` or with the model's end-of-text token. Raises ValueError
    for an empty prompt, a negative temperature or count, or a chunk size outside 1…4096.
    """

    session_id: str
    request_id: str
    prompt: str
    max_new_tokens: int = 48
    temperature: float = 0.0
    seed: int = 0
    chunk_tokens: int = CHUNK_TOKENS

    def __post_init__(self) -> None:
        """Refuse what no engine could answer."""
        if not self.prompt:
            raise ValueError("the prompt is empty: there is no token to route")
        if self.max_new_tokens < 0 or self.temperature < 0:
            raise ValueError("max_new_tokens and temperature cannot be negative")
        if not 1 <= self.chunk_tokens <= CHUNK_TOKENS_MAX:
            raise ValueError(f"chunk_tokens must be 1…{CHUNK_TOKENS_MAX}, not {self.chunk_tokens}")


@dataclass(frozen=True)
class RouterChunk:
    """T consecutive tokens of one request, as the model consumed them.

    position_start  position of the first token in the request (the prompt's first token is 0)
    layers          ids of the layers with a router, int[L]
    logits          float32 [T, L, E]: row t is the router's answer to token `token_ids[t]`
    token_ids       int32 [T]: the tokens that were consumed, prompt first, then the generated ones
    token_entropy   float32 [T], nats: entropy of softmax(next-token logits) that the model gave
                    after consuming token_ids[t], at temperature 1 whatever the sampling; None where
                    the engine cannot say
    latency_us      time the engine took for these tokens; a pass over many tokens is shared out
    phase           prefill (prompt tokens) or decode (generated tokens); a chunk never mixes them
    """

    session_id: str
    request_id: str
    position_start: int
    layers: tuple[int, ...]
    logits: Float32
    token_ids: Int32
    token_entropy: Float32 | None
    latency_us: int
    phase: Phase

    @property
    def steps(self) -> int:
        """T, the number of tokens."""
        return int(self.logits.shape[0])


class Backend(Protocol):
    """An inference engine with its router tapped."""

    @property
    def facts(self) -> ModelFacts:
        """The loaded model."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What this engine really gives."""
        ...

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, as `generate` consumes them."""
        ...

    def decode(self, token_ids: list[int]) -> str:
        """Text of `token_ids`; the end-of-text token is left out."""
        ...

    def generate(self, request: GenerateRequest) -> Iterator[RouterChunk]:
        """Run `request`; yields its chunks in order of position.

        Every token that the model consumes is in exactly one chunk: the whole prompt, and each
        generated token but the last, since nothing is drawn after it. So P prompt and G ≥ 1
        generated tokens make P + G − 1 rows, and row t's entropy is that of the distribution from
        which token t + 1 was drawn. Several requests may be iterated in turns, in one thread.
        """
        ...

    def router_gram(self) -> Float32:
        """W Wᵀ per layer, float32 [L, E, E], in the order of `facts.layers`.

        It is all that hidden-space sensitivity and flip distance need of the router matrix:
        ‖W_i − W_j‖² = K_ii − 2 K_ij + K_jj. Raises CapabilityError without `router_matrix`.
        """
        ...
