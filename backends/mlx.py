"""mlx-lm as a backend: its own generation loop, with the router of every layer tapped.

The loop runs one step ahead of what it yields, and passes over the prompt as n − 1 rows and then 1.
So chunks are built from what the model was called with, never from what the loop hands out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.generate import generate_step
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import load_model, load_tokenizer

from routekeel.backends.base import Capabilities, Float32, GenerateRequest, ModelFacts, RouterChunk
from routekeel.backends.capture import ChunkBuilder, ForwardPass
from routekeel.backends.checkpoint import Checkpoint, open_checkpoint
from routekeel.backends.engine_thread import EngineThread
from routekeel.backends.router_tap import RouterTap, TappedPass

CAPABILITIES = Capabilities(
    router_logits=True, token_entropy=True, router_matrix=True, router_kinds=("softmax",)
)


class MlxBackend:
    """`Backend` over mlx-lm. Requests may be iterated in turns, from any thread."""

    def __init__(
        self, checkpoint: Checkpoint, now_ns: Callable[[], int] = time.perf_counter_ns
    ) -> None:
        """Load model and tokenizer, install the tap. Raises UntappableModelError if in vain."""
        self._now_ns = now_ns
        self._thread = EngineThread("routekeel-mlx")
        self._tokenizer: Any = load_tokenizer(checkpoint.folder)
        config = self._thread.call(partial(self._load, checkpoint))
        self._facts = ModelFacts(
            backend="mlx",
            model=checkpoint.name,
            model_revision=checkpoint.revision,
            router_kind="softmax",
            layers=self._tap.layers,
            experts=self._gram.shape[1],
            top_k=config["num_experts_per_tok"],
            vocabulary_size=config["vocab_size"],
        )

    def _load(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """Load and tap the model, on the engine's thread; returns its config."""
        self._model, config = load_model(checkpoint.folder)
        if mx.default_device() == mx.Device(mx.cpu):
            self._model.set_dtype(mx.float32)  # GatherMM has no half-precision kernel on a CPU
            mx.eval(self._model.parameters())
        self._tap = RouterTap(self._model)
        matrices = self._tap.router_matrices(config["hidden_size"])
        self._gram = np.stack([np.array(w @ w.T, dtype=np.float32) for w in matrices])
        return dict(config)

    @property
    def facts(self) -> ModelFacts:
        """The loaded model."""
        return self._facts

    @property
    def capabilities(self) -> Capabilities:
        """Router logits, entropy and W; control and probe are not built for this engine."""
        return CAPABILITIES

    def encode(self, text: str) -> list[int]:
        """Token ids of `text` by the checkpoint's tokenizer."""
        return [int(token) for token in self._tokenizer.encode(text)]

    def decode(self, token_ids: list[int]) -> str:
        """Text of `token_ids`, special tokens left out."""
        return str(self._tokenizer.decode(token_ids, skip_special_tokens=True))

    def router_gram(self) -> Float32:
        """W Wᵀ per layer, float32 [L, E, E]."""
        return self._gram.copy()

    def generate(self, request: GenerateRequest) -> Iterator[RouterChunk]:
        """Run mlx-lm's generation; see Backend.generate."""
        return self._thread.iterate(partial(self._generate, request))

    def _generate(self, request: GenerateRequest) -> Iterator[RouterChunk]:
        """The same, on the engine's thread.

        When the loop yields a token, the pass that consumes it is already under way. It is not
        waited for, and counts only if the loop goes on: the last token's pass is thrown away, as no
        other engine makes it. Latency is the time since the last yield, shared out over the rows.
        """
        prompt = self.encode(request.prompt)
        builder = ChunkBuilder(request, self._facts.layers, len(prompt))
        passes: list[TappedPass] = []
        cache = make_prompt_cache(self._model)

        def tapped(token_ids: mx.array, cache: Any) -> mx.array:
            return self._tap.forward(token_ids, cache, passes)

        steps = generate_step(
            mx.array(prompt),
            tapped,
            max_tokens=max(1, request.max_new_tokens),
            sampler=sampler_of(request),
            prompt_cache=cache,
        )
        with closing(steps):
            began = self._now_ns()
            for token, _ in steps:
                ahead = passes.pop()
                for rows in self._evaluate(passes, began):
                    yield from builder.add(rows)
                passes[:] = [ahead]
                if token in self._tokenizer.eos_token_ids:
                    break
                began = self._now_ns()
        yield from builder.finish()

    def _evaluate(self, passes: list[TappedPass], began_ns: int) -> list[ForwardPass]:
        """Compute lazy passes; the time since `began_ns` is shared out by their rows."""
        mx.eval([(one.token_ids, one.logits, one.token_entropy) for one in passes])
        elapsed_us = (self._now_ns() - began_ns) / 1000
        total = sum(one.token_ids.size for one in passes)
        return [
            ForwardPass(
                np.array(one.token_ids, dtype=np.int32),
                np.array(one.logits, dtype=np.float32),
                np.array(one.token_entropy, dtype=np.float32),
                elapsed_us * one.token_ids.size / total,
            )
            for one in passes
        ]


def sampler_of(request: GenerateRequest) -> Callable[[mx.array], mx.array] | None:
    """None (greedy) at temperature 0; else draws by keys of the request's own seed.

    Own keys, since the engine's global random state would make interleaved requests depend on each
    other's order.
    """
    if request.temperature == 0:
        return None
    key = mx.random.key(request.seed)

    def sample(log_p: mx.array) -> mx.array:
        nonlocal key
        key, now = mx.random.split(key)
        return mx.random.categorical(log_p / request.temperature, key=now)

    return sample


def open_backend(checkpoint: Path | None = None) -> MlxBackend:
    """The mlx backend on `checkpoint`, or on the bundled model.

    Open it from the main thread: importing mlx-lm makes a stream of the importing thread's, and MLX
    aborts the process when that thread ends before it. Generate from any thread.
    """
    return MlxBackend(open_checkpoint(checkpoint))
