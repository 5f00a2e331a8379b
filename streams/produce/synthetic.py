"""A synthetic load whose every chunk follows from (seed, session, chunk) alone.

So an oracle can build any chunk again without the others, however the stream delivered them. A
session's route drifts linearly between random knots with white noise on top. Its ambiguity drifts
the same way between clear and ambiguous knots, and where it is high the logits are flatter and
noisier: ambiguity drives the route's instability here, by construction.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from routekeel.streams.errors import ConfigurationError
from routekeel.streams.produce.chunk import Chunk

F32 = npt.NDArray[np.float32]

BLOCK_CHUNKS = 32
"""Chunks of a session that are generated together; changing it changes every chunk's values."""
KNOT_TOKENS = 16
AMBIGUOUS_SHARE = 0.35
"""Share of the knots that are ambiguous (A in 0.7…1); the others are clear (0.02…0.45)."""
SHARP_SCALE, FLAT_SCALE = 3.0, 0.6
CONCURRENT_MAX = 256
CONCURRENT_BYTES_MAX = 64 * 2**20
BLOCKS_KEPT_MAX = 64
CHUNK_INTERVAL_US = 50_000
TOKEN_LATENCY_US = 1500
_DTYPES: dict[str, npt.DTypeLike] = {"F16": np.float16, "F32": np.float32}


class Block(NamedTuple):
    """BLOCK_CHUNKS consecutive chunks of one session: logits [B, T, L, E], ambiguity [B, T]."""

    logits: npt.NDArray[Any]
    ambiguity: F32
    latencies_us: list[int]


@dataclass(frozen=True)
class SyntheticLoad:
    """`sessions` sessions of `chunks_per_session` chunks with logits of `shape` (T, L, E).

    Iterating gives every chunk once, each session's in order, the sessions interleaved at random by
    the seed, at most `concurrent` of them at a time. `encoding` F16 or F32 is the logits' dtype, so
    what is sent is exactly what `chunk` gives. Event times start at `start_us` and are left to the
    producer where it is None. Raises ConfigurationError for impossible sizes.

    >>> load = SyntheticLoad(3, 40, shape=(2, 4, 8), seed=7)
    >>> len(load), load.session_id(1)
    (120, 'synthetic-7-000001')
    >>> chunks = [c for c in load if c.session_id == load.session_id(1)]
    >>> bool((chunks[33].logits == load.chunk(1, 33).logits).all())
    True
    """

    sessions: int
    chunks_per_session: int
    shape: tuple[int, int, int] = (8, 4, 8)
    seed: int = 0
    encoding: str = "F16"
    top_k: int = 2
    chunks_per_request: int | None = None
    start_us: int | None = None
    concurrent: int = CONCURRENT_MAX
    model: str = "synthetic"

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be generated."""
        numbers = (self.sessions, self.chunks_per_session, *self.shape, self.concurrent)
        if len(self.shape) != 3 or min(numbers) < 1 or (self.chunks_per_request or 1) < 1:
            raise ConfigurationError("sessions, chunks and every side of the shape must be above 0")
        if self.seed < 0:
            raise ConfigurationError(f"the seed is {self.seed}, it must not be negative")
        if not 1 <= self.top_k <= self.shape[2]:
            raise ConfigurationError(f"top_k is {self.top_k} with {self.shape[2]} experts")
        if self.encoding not in _DTYPES:
            raise ConfigurationError(
                f"encoding {self.encoding!r} is unknown here", "it is F16 or F32"
            )

    def __len__(self) -> int:
        return self.sessions * self.chunks_per_session

    def __iter__(self) -> Iterator[Chunk]:
        block_bytes = BLOCK_CHUNKS * int(np.prod(self.shape)) * np.dtype(self._dtype).itemsize
        group = max(1, min(self.concurrent, CONCURRENT_BYTES_MAX // block_bytes))
        for first in range(0, self.sessions, group):
            members = range(first, min(first + group, self.sessions))
            for block in range(-(-self.chunks_per_session // BLOCK_CHUNKS)):
                yield from self._round(members, block)

    def session_id(self, session: int) -> str:
        """The id of a session by its number; it carries the seed."""
        return f"synthetic-{self.seed}-{session:06d}"

    def chunk(self, session: int, chunk: int) -> Chunk:
        """Any chunk of any session, the same as in the iteration. Raises IndexError."""
        if not (0 <= session < self.sessions and 0 <= chunk < self.chunks_per_session):
            raise IndexError(f"no chunk {chunk} of session {session}")
        block, within = divmod(chunk, BLOCK_CHUNKS)
        return self._chunk(session, block, within, _cached_block(self, session, block))

    @property
    def _dtype(self) -> npt.DTypeLike:
        return _DTYPES[self.encoding]

    def _round(self, members: range, block: int) -> Iterator[Chunk]:
        """One block of every session of the group, their chunks shuffled into each other."""
        left = min(BLOCK_CHUNKS, self.chunks_per_session - block * BLOCK_CHUNKS)
        blocks = [
            make_block(self.seed, session, block, self.shape, self._dtype) for session in members
        ]
        turns = np.repeat(np.arange(len(members)), left)
        _generator(self.seed, 2, members[0], block).shuffle(turns)
        done = [0] * len(members)
        for turn in turns.tolist():
            within = done[turn]
            done[turn] = within + 1
            yield self._chunk(members[turn], block, within, blocks[turn])

    def _chunk(self, session: int, block: int, within: int, made: Block) -> Chunk:
        chunk = block * BLOCK_CHUNKS + within
        request, position = 0, chunk
        if self.chunks_per_request is not None:
            request, position = divmod(chunk, self.chunks_per_request)
        fields: dict[str, Any] = {
            "request_id": f"r{request}",
            "model": self.model,
            "backend": "synthetic",
            "top_k": self.top_k,
            "position_start": position * self.shape[0],
            "ambiguity": {"predictive": made.ambiguity[within]},
            "latency_us": made.latencies_us[within],
        }
        if self.start_us is not None:
            fields["event_time_us"] = self.start_us + chunk * CHUNK_INTERVAL_US + session
        return Chunk(self.session_id(session), made.logits[within], fields)


@lru_cache(maxsize=BLOCKS_KEPT_MAX)
def _cached_block(load: SyntheticLoad, session: int, block: int) -> Block:
    return make_block(load.seed, session, block, load.shape, load._dtype)


def make_block(
    seed: int, session: int, block: int, shape: tuple[int, int, int], dtype: npt.DTypeLike
) -> Block:
    """One block of a session: z = scale(a)·knots + (0.1 + 0.5 a)·noise."""
    steps, layers, experts = shape
    tokens, width = BLOCK_CHUNKS * steps, layers * experts
    spans = -(-tokens // KNOT_TOKENS)
    rng = _generator(seed, 0, session, block)
    # The block ends on the knot that the next one begins with: no jump between blocks.
    ends = [_knots(_generator(seed, 1, session, border), 1, width) for border in (block, block + 1)]
    inner = _knots(rng, spans - 1, width)
    knots, levels = (np.concatenate(parts) for parts in zip(ends[0], inner, ends[1], strict=True))
    part = (np.arange(KNOT_TOKENS, dtype=np.float32) / np.float32(KNOT_TOKENS))[:, None]
    route = _between(knots, part)[:tokens]
    ambiguity = _between(levels[:, None], part)[:tokens]
    scale = np.float32(SHARP_SCALE) + np.float32(FLAT_SCALE - SHARP_SCALE) * ambiguity
    noise = rng.standard_normal((tokens, width), np.float32)
    logits = route * scale + noise * (np.float32(0.1) + np.float32(0.5) * ambiguity)
    per_chunk = ambiguity.reshape(BLOCK_CHUNKS, steps)
    latencies = per_chunk.mean(axis=1, dtype=np.float64) + 1.0
    return Block(
        logits.reshape(BLOCK_CHUNKS, steps, layers, experts).astype(dtype),
        per_chunk,
        (latencies * (steps * TOKEN_LATENCY_US)).astype(np.int64).tolist(),
    )


def _generator(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64(key))


def _knots(rng: np.random.Generator, count: int, width: int) -> tuple[F32, F32]:
    """`count` knots of the route [count, width] and of the ambiguity [count]."""
    route = rng.standard_normal((count, width), np.float32)
    chance = rng.random((count, 2), np.float32)
    ambiguous = np.float32(0.7) + np.float32(0.3) * chance[:, 1]
    clear = np.float32(0.02) + np.float32(0.43) * chance[:, 1]
    return route, np.where(chance[:, 0] < AMBIGUOUS_SHARE, ambiguous, clear)


def _between(knots: F32, part: F32) -> F32:
    """Linear interpolation, KNOT_TOKENS tokens from each knot on: [knots, W] -> [tokens, W]."""
    spans = knots[:-1, None, :] + (knots[1:] - knots[:-1])[:, None, :] * part[None, :, :]
    return spans.reshape(-1, knots.shape[1])
