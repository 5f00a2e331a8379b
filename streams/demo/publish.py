"""Runs the bundled prompts through the engine and publishes every chunk through the SDK.

This is the glue that a user writes for an engine of their own: the tap yields chunks, emit_logits
takes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from routekeel.backends.base import Backend, RouterChunk
from routekeel.backends.tinymoe.prompts import PROMPTS, Prompt
from routekeel.streams.sdk.producer import Producer

ON_CHUNK = Callable[[Prompt, RouterChunk], None]
CONCURRENT_SESSIONS = 4
# Drawn, not greedy: what an ambiguous prompt leaves open shows only when it is drawn from.
TEMPERATURE = 1.0
SEED = 7


@dataclass(slots=True)
class Published:
    """What was generated and handed to the SDK."""

    sessions: int = 0
    chunks: int = 0
    tokens: int = 0
    routing_decisions: int = 0
    refused: int = 0


def session_name(run: str, prompt: Prompt) -> str:
    """The session id of a prompt in this run; runs do not share state."""
    return f"demo-{run}-{prompt.id}"


def publish_prompts(
    backend: Backend, producer: Producer, run: str, on_chunk: ON_CHUNK
) -> Published:
    """Generate all prompts, a few sessions at a time as a server would, and publish their chunks."""
    facts = backend.facts
    done = Published(sessions=len(PROMPTS))
    for prompt, chunk in _in_turns(backend):
        accepted = producer.emit_logits(
            session_name(run, prompt),
            np.asarray(chunk.logits),
            position_start=chunk.position_start,
            request_id=chunk.request_id,
            phase=chunk.phase,
            layers=chunk.layers,
            token_ids=chunk.token_ids,
            token_entropy=chunk.token_entropy,
            vocabulary_size=facts.vocabulary_size,
            latency_us=chunk.latency_us,
            task_type=prompt.kind,
        )
        done.chunks += 1
        done.tokens += chunk.steps
        done.routing_decisions += chunk.steps * len(chunk.layers)
        done.refused += not accepted
        on_chunk(prompt, chunk)
    return done


def _in_turns(backend: Backend) -> Iterator[tuple[Prompt, RouterChunk]]:
    waiting = list(PROMPTS)
    running: list[tuple[Prompt, Iterator[RouterChunk]]] = []
    while waiting or running:
        while waiting and len(running) < CONCURRENT_SESSIONS:
            prompt = waiting.pop(0)
            running.append((prompt, iter(backend.generate(prompt.request(TEMPERATURE, SEED)))))
        for entry in list(running):
            chunk = next(entry[1], None)
            if chunk is None:
                running.remove(entry)
            else:
                yield entry[0], chunk
