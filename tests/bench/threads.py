"""What a second thread would give: batches of two partitions, applied in one thread and in two.

In memory, with no broker, nothing sent and no checkpoints. The compiled functions let the GIL go, the
Python between them does not; the worker applies all its partitions in one thread, its event loop's.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np

from routekeel.operators.config import DEFAULT
from routekeel.operators.contract import ChunkBatch
from routekeel.operators.state import initial_rows
from routekeel.operators.step import step_many
from routekeel.schemas.registry import FixedSchemaIds
from routekeel.streams.topology.changelog import MemoryStore
from routekeel.streams.topology.records import LogBatch

from .load import Shape
from .one_partition import Feed, Parts, Soak, sessions_of

SESSIONS = 200
BATCH, BATCH_BYTES = 5_000, 4 * 2**20  # as many chunks, but of large ones fewer
Timed = Callable[["Part", LogBatch], Any]


class Part:
    """A partition: its batches, and the two things that are timed on one."""

    def __init__(self, shape: Shape) -> None:
        self.size = min(BATCH, BATCH_BYTES // (2 * shape.tokens * shape.layers * shape.experts))
        soak = Soak(SESSIONS, 0, shape.tokens, shape.layers, shape.experts, self.size, 0.0)
        ids = FixedSchemaIds()
        self._feed, self._turns, self._offset = Feed(soak, ids), sessions_of(soak), 0
        parts = Parts(soak, ids)
        self._processor, self._path = parts.processor(MemoryStore()), parts.path()
        rows = self.size * shape.tokens * shape.layers
        logits = np.random.default_rng(1).normal(scale=2, size=(rows, shape.experts))
        slots = np.arange(self.size * shape.layers) % (SESSIONS * shape.layers)
        steps, layers = (np.full(self.size, n) for n in (shape.tokens, shape.layers))
        self._inputs = ChunkBatch.build(logits.astype(np.float32), steps, layers, slots, top_k=2)
        self._arena = initial_rows(SESSIONS * shape.layers, shape.experts)

    def batch(self) -> LogBatch:
        """The next records of the partition."""
        start = self._offset
        self._offset += self.size
        turns = islice(self._turns, self.size)
        return LogBatch.of([self._feed.record(start + i, *turn) for i, turn in enumerate(turns)])

    def decode_and_kernel(self, batch: LogBatch) -> None:
        """Decode the batch, and the kernel over as many chunks of the shape."""
        assert self._path is not None
        self._path.decode(batch)
        step_many(DEFAULT, self._arena, self._inputs, out=self._arena)

    def apply(self, batch: LogBatch) -> None:
        """All that the worker does with a batch in that thread, but for sending."""
        self._processor.apply(batch)


def run(shapes: Sequence[Shape], batches: int, repeats: int) -> list[dict[str, Any]]:
    """Events a second by shape and by what is done, in one thread and in two, in turn."""
    whats = {"decode and kernel": Part.decode_and_kernel, "decode to encode": Part.apply}
    return [
        _case(shape, what, do, batches, repeats) for shape in shapes for what, do in whats.items()
    ]


def _case(shape: Shape, what: str, do: Timed, batches: int, repeats: int) -> dict[str, Any]:
    parts = [Part(shape), Part(shape)]
    rates: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(1 + repeats):
        for threads, found in rates.items():
            work = [(part, [part.batch() for _ in range(batches)]) for part in parts]
            with ThreadPoolExecutor(threads) as pool:
                began = time.perf_counter()
                list(pool.map(lambda of: [do(of[0], batch) for batch in of[1]], work))
                seconds = time.perf_counter() - began
            found.append(2 * batches * parts[0].size / seconds)
    one, two = (found[1:] for found in rates.values())  # the first run of each warms up
    gains = [b / a for a, b in zip(one, two, strict=True)]
    return {
        "shape": str(shape), "what": what, "chunks": parts[0].size,
        "one_per_s": statistics.median(one), "two_per_s": statistics.median(two),
        "gain": statistics.median(gains), "gain_range": [min(gains), max(gains)],
    }  # fmt: skip
