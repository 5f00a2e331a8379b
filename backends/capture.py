"""From the engine's forward passes to chunks with positions: each position exactly once.

An engine passes over a prompt in one go and over generated tokens one by one, often one step ahead
of what it has handed out. This file knows no engine: it takes what each pass consumed, in order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from routekeel.backends.base import Float32, GenerateRequest, Int32, Phase, RouterChunk


@dataclass(frozen=True)
class ForwardPass:
    """What one pass consumed and what its routers said: T rows, in order of position.

    `logits` is [T, L, E], `token_entropy` [T] in nats or None; see RouterChunk.
    """

    token_ids: Int32
    logits: Float32
    token_entropy: Float32 | None
    latency_us: float


class ChunkBuilder:
    """Cuts the passes of one request into chunks of `request.chunk_tokens`.

    Positions count from 0 over all rows given. The first `prompt_tokens` rows are prefill, the rest
    decode, wherever the engine's passes begin and end. The last chunk of a phase may be shorter.
    """

    def __init__(
        self, request: GenerateRequest, layers: tuple[int, ...], prompt_tokens: int
    ) -> None:
        """Start at position 0 with nothing pending."""
        self._request = request
        self._layers = layers
        self._prompt_tokens = prompt_tokens
        self._pending: list[ForwardPass] = []  # one row each
        self._position_start = 0

    @property
    def next_position(self) -> int:
        """Position of the next row that `add` will take."""
        return self._position_start + len(self._pending)

    def add(self, rows: ForwardPass) -> Iterator[RouterChunk]:
        """Take one pass; yields each chunk that it completes.

        A pass of no rows yields nothing. Raises ValueError when the arrays disagree on T or the
        layers are not those announced; nothing is taken then.
        """
        steps = len(rows.token_ids)
        if rows.logits.ndim != 3 or rows.logits.shape[:2] != (steps, len(self._layers)):
            raise ValueError(
                f"logits {rows.logits.shape} do not fit {steps} tokens × {len(self._layers)} layers"
            )
        if rows.token_entropy is not None and rows.token_entropy.shape != (steps,):
            raise ValueError(f"entropy {rows.token_entropy.shape} does not fit {steps} tokens")
        return self._take(rows, steps)

    def _take(self, rows: ForwardPass, steps: int) -> Iterator[RouterChunk]:
        for step in range(steps):
            at = slice(step, step + 1)
            entropy = None if rows.token_entropy is None else rows.token_entropy[at]
            self._pending.append(
                ForwardPass(rows.token_ids[at], rows.logits[at], entropy, rows.latency_us / steps)
            )
            full = len(self._pending) == self._request.chunk_tokens
            if full or self.next_position == self._prompt_tokens:
                yield self._cut()

    def finish(self) -> Iterator[RouterChunk]:
        """Yield what is pending as the last chunk; nothing if nothing is."""
        if self._pending:
            yield self._cut()

    def _cut(self) -> RouterChunk:
        rows, self._pending = self._pending, []
        phase: Phase = "prefill" if self._position_start < self._prompt_tokens else "decode"
        entropies = [row.token_entropy for row in rows if row.token_entropy is not None]
        chunk = RouterChunk(
            session_id=self._request.session_id,
            request_id=self._request.request_id,
            position_start=self._position_start,
            layers=self._layers,
            logits=np.concatenate([row.logits for row in rows]).astype(np.float32, copy=False),
            token_ids=np.concatenate([row.token_ids for row in rows]).astype(np.int32, copy=False),
            token_entropy=np.concatenate(entropies) if len(entropies) == len(rows) else None,
            latency_us=round(sum(row.latency_us for row in rows)),
            phase=phase,
        )
        self._position_start += len(rows)
        return chunk
