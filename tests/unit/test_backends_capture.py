"""However an engine cuts its passes, each position is in exactly one chunk, in order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routekeel.backends.base import GenerateRequest, RouterChunk
from routekeel.backends.capture import ChunkBuilder, ForwardPass

LAYERS, EXPERTS = (2, 5), 4


def rows_from(start: int, steps: int, latency_us: float = 0.0) -> ForwardPass:
    """A pass whose every value tells its position."""
    at = np.arange(start, start + steps)
    logits = np.broadcast_to(at[:, None, None], (steps, len(LAYERS), EXPERTS))
    return ForwardPass(
        at.astype(np.int32), logits.astype(np.float32), at.astype(np.float32), latency_us
    )


def build(passes: list[int], prompt_tokens: int, chunk_tokens: int) -> list[RouterChunk]:
    """The chunks of one request whose passes have these many rows."""
    request = GenerateRequest("s", "r", "a prompt", chunk_tokens=chunk_tokens)
    builder = ChunkBuilder(request, LAYERS, prompt_tokens)
    chunks: list[RouterChunk] = []
    position = 0
    for steps in passes:
        chunks += builder.add(rows_from(position, steps))
        position += steps
        assert builder.next_position == position
    return chunks + list(builder.finish())


@given(
    passes=st.lists(st.integers(0, 9), max_size=12),
    prompt_tokens=st.integers(1, 40),
    chunk_tokens=st.integers(1, 12),
)
def test_every_position_once_and_in_order(
    passes: list[int], prompt_tokens: int, chunk_tokens: int
) -> None:
    chunks = build(passes, prompt_tokens, chunk_tokens)
    expected = np.arange(sum(passes))
    seen = [chunk.token_ids for chunk in chunks]
    assert np.array_equal(np.concatenate([*seen, np.zeros(0, np.int32)]), expected)
    for chunk in chunks:
        at = np.arange(chunk.position_start, chunk.position_start + chunk.steps)
        assert 1 <= chunk.steps <= chunk_tokens
        assert np.array_equal(chunk.token_ids, at)
        assert chunk.logits.shape == (chunk.steps, len(LAYERS), EXPERTS)
        assert np.array_equal(chunk.logits[:, 1, 3], at)
        assert chunk.token_entropy is not None
        assert np.array_equal(chunk.token_entropy, at)
        assert {p < prompt_tokens for p in at} == {chunk.phase == "prefill"}


@given(passes=st.lists(st.integers(1, 9), min_size=1, max_size=12), cut=st.integers(1, 12))
def test_how_the_engine_cuts_its_passes_does_not_show(passes: list[int], cut: int) -> None:
    whole = build([sum(passes)], prompt_tokens=7, chunk_tokens=cut)
    parts = build(passes, prompt_tokens=7, chunk_tokens=cut)
    assert [(c.position_start, c.steps, c.phase) for c in whole] == [
        (c.position_start, c.steps, c.phase) for c in parts
    ]


def test_latency_is_shared_out_by_rows() -> None:
    builder = ChunkBuilder(GenerateRequest("s", "r", "p", chunk_tokens=2), LAYERS, 3)
    chunks = [*builder.add(rows_from(0, 3, 300.0)), *builder.add(rows_from(3, 1, 50.0))]
    chunks += builder.finish()
    assert [chunk.latency_us for chunk in chunks] == [200, 100, 50]


def test_arrays_are_typed_as_the_contract_says() -> None:
    (chunk,) = build([3], prompt_tokens=3, chunk_tokens=8)
    assert chunk.token_entropy is not None
    assert (chunk.logits.dtype, chunk.token_ids.dtype) == (np.float32, np.int32)
    assert chunk.token_entropy.dtype == np.float32
    assert (chunk.session_id, chunk.request_id, chunk.layers) == ("s", "r", LAYERS)


def test_an_entropy_that_is_unknown_stays_unknown() -> None:
    builder = ChunkBuilder(GenerateRequest("s", "r", "p"), LAYERS, 2)
    known = rows_from(0, 2)
    (chunk,) = builder.add(ForwardPass(known.token_ids, known.logits, None, 1.0))
    assert chunk.token_entropy is None


def test_rows_that_do_not_fit_are_refused_and_not_taken() -> None:
    builder = ChunkBuilder(GenerateRequest("s", "r", "p"), LAYERS, 2)
    good = rows_from(0, 2)
    with pytest.raises(ValueError, match="do not fit 2 tokens"):
        builder.add(ForwardPass(good.token_ids, good.logits[:, :1], None, 0.0))
    with pytest.raises(ValueError, match="entropy"):
        builder.add(ForwardPass(good.token_ids, good.logits, np.zeros(3, np.float32), 0.0))
    assert builder.next_position == 0
