"""The mlx-lm tap against the NumPy reference: same logits in every layer, same tokens, no effect.

The two share no code below the checkpoint's bytes, so agreement is evidence for both.
"""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("mlx_lm")

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.generate import generate_step

from routekeel.backends import catalog
from routekeel.backends.base import GenerateRequest, RouterChunk
from routekeel.backends.mlx import MlxBackend, open_backend
from routekeel.backends.reference import ReferenceBackend
from routekeel.backends.reference import open_backend as open_reference
from routekeel.backends.router_tap import RouterTap, UntappableModelError
from routekeel.backends.tinymoe.prompts import PROMPTS, Prompt

pytestmark = pytest.mark.backend

# Measured 5e-6 on logits of order 1 to 10, in float32 with sums in another order.
LOGITS_TOLERANCE = 5e-5
ENTROPY_TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def mlx() -> MlxBackend:
    return open_backend()


@pytest.fixture(scope="module")
def reference() -> ReferenceBackend:
    return open_reference()


def joined(chunks: list[RouterChunk]) -> tuple[Any, Any, Any]:
    """Token ids, logits and entropies over all chunks."""
    entropy = [c.token_entropy for c in chunks if c.token_entropy is not None]
    return (
        np.concatenate([c.token_ids for c in chunks]),
        np.concatenate([c.logits for c in chunks]),
        np.concatenate(entropy),
    )


@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda prompt: prompt.id)
def test_router_logits_equal_the_reference_in_every_layer(
    mlx: MlxBackend, reference: ReferenceBackend, prompt: Prompt
) -> None:
    ours = joined(list(mlx.generate(prompt.request())))
    theirs = joined(list(reference.generate(prompt.request())))
    assert np.array_equal(ours[0], theirs[0])  # greedy tokens, hence positions too
    worst = np.abs(ours[1] - theirs[1]).max(axis=(0, 2))
    assert worst.shape == (4,)
    assert (worst < LOGITS_TOLERANCE).all(), worst
    assert np.abs(ours[2] - theirs[2]).max() < ENTROPY_TOLERANCE


@pytest.mark.parametrize("chunk_tokens", [1, 5, 8, 64])
def test_every_position_once(mlx: MlxBackend, chunk_tokens: int) -> None:
    request = GenerateRequest("s", "r", "Perhaps Felix will", 20, chunk_tokens=chunk_tokens)
    chunks = list(mlx.generate(request))
    positions = [p for c in chunks for p in range(c.position_start, c.position_start + c.steps)]
    assert positions == list(range(len(request.prompt) + 19))
    assert all(c.steps <= chunk_tokens for c in chunks)
    prefill = [c for c in chunks if c.phase == "prefill"]
    assert sum(c.steps for c in prefill) == len(request.prompt)
    assert mlx.decode(joined(prefill)[0].tolist()) == request.prompt


@pytest.mark.parametrize(("max_new_tokens", "rows"), [(0, 0), (1, 0), (2, 1)])
def test_the_step_that_ran_ahead_is_not_reported(
    mlx: MlxBackend, max_new_tokens: int, rows: int
) -> None:
    chunks = list(mlx.generate(GenerateRequest("s", "r", "a", max_new_tokens)))
    assert [(c.phase, c.steps) for c in chunks][:1] == [("prefill", 1)]
    assert sum(c.steps for c in chunks if c.phase == "decode") == rows


def test_a_prompt_longer_than_one_prefill_pass(
    mlx: MlxBackend, reference: ReferenceBackend
) -> None:
    text = "def double(x):\n    return 2 * x\n\n" * 80  # 2,640 tokens: the engine makes two passes
    ours = joined(list(mlx.generate(GenerateRequest("s", "r", text, 2))))
    theirs = joined(list(reference.generate(GenerateRequest("s", "r", text, 2))))
    assert np.array_equal(ours[0], theirs[0])
    assert np.abs(ours[1] - theirs[1]).max() < 10 * LOGITS_TOLERANCE  # longer sums


def test_sampling_repeats_by_seed_even_when_requests_take_turns(mlx: MlxBackend) -> None:
    requests = [GenerateRequest("s", "r", "You could", 16, 1.0, seed) for seed in (1, 2)]
    alone = [[c.token_ids.tolist() for c in mlx.generate(request)] for request in requests]
    assert alone[0] != alone[1]
    turns = zip(*(mlx.generate(request) for request in requests), strict=False)
    for at, (first, second) in enumerate(turns):
        assert first.token_ids.tolist() == alone[0][at]
        assert second.token_ids.tolist() == alone[1][at]


def test_the_tap_changes_nothing_and_comes_off() -> None:
    backend = open_backend()
    model, token_ids = backend._model, backend.encode("The notebook could be in")

    def outputs() -> tuple[list[int], bytes]:
        steps = list(generate_step(mx.array(token_ids), model, max_tokens=24))
        return [token for token, _ in steps], b"".join(np.array(p).tobytes() for _, p in steps)

    run = backend._thread.call  # MLX's streams belong to a thread
    tapped = run(outputs)
    wrapped = [type(layer.block_sparse_moe.gate) for layer in model.layers]
    backend._tap.remove()
    backend._tap.remove()
    assert run(outputs) == tapped
    bare = [type(layer.block_sparse_moe.gate) for layer in model.layers]
    assert {kind.__name__ for kind in wrapped} == {"GateWrap"}
    assert set(bare) == {nn.Linear}


def test_any_thread_may_generate_and_leave_early(mlx: MlxBackend) -> None:
    request = PROMPTS[1].request(temperature=1.0, seed=4)
    here = [chunk.token_ids.tolist() for chunk in mlx.generate(request)]
    with ThreadPoolExecutor(2) as pool:
        abandoned = pool.submit(lambda: next(mlx.generate(request)).token_ids.tolist())
        there = pool.submit(lambda: [c.token_ids.tolist() for c in mlx.generate(request)])
        assert there.result() == here
        assert abandoned.result() == here[0]


def test_a_thread_that_generated_may_end() -> None:
    program = (
        "import threading; from routekeel.backends.mlx import open_backend;"
        "from routekeel.backends.tinymoe.prompts import PROMPTS; b = open_backend();"
        "t = threading.Thread(target=lambda: list(b.generate(PROMPTS[1].request())));"
        "t.start(); t.join(); print('ended')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "ended\n"), done.stderr


def test_gram_and_facts_equal_the_reference(mlx: MlxBackend, reference: ReferenceBackend) -> None:
    assert np.allclose(mlx.router_gram(), reference.router_gram(), atol=1e-5)
    ours, theirs = mlx.facts, reference.facts
    assert (ours.backend, theirs.backend) == ("mlx", "reference")
    assert (ours.model, ours.model_revision) == (theirs.model, theirs.model_revision)
    assert (ours.layers, ours.experts, ours.top_k) == (theirs.layers, theirs.experts, theirs.top_k)
    assert catalog.load("mlx").facts == ours


class Block(nn.Module):
    """A decoder layer that keeps its router where Qwen-MoE or gpt-oss do, or has none."""

    def __init__(self, name: str | None) -> None:
        super().__init__()
        self.mlp = nn.Module()
        if name:
            setattr(self.mlp, name, nn.Linear(6, 3, bias=name == "router"))


class Blocks:
    """As much of a model as the tap looks at."""

    def __init__(self, *names: str | None) -> None:
        self.layers = [Block(name) for name in names]


def test_gates_are_found_where_other_families_keep_them() -> None:
    tap = RouterTap(Blocks(None, "gate", None, "router"))
    assert tap.layers == (1, 3)
    with_bias = tap.router_matrices(6)[1]
    wanted = tap._places[3][2].weight
    assert np.allclose(np.array(with_bias), np.array(wanted), atol=1e-6)


def test_a_model_without_routers_is_refused() -> None:
    with pytest.raises(UntappableModelError, match=r"block_sparse_moe\.gate"):
        RouterTap(Blocks(None, None))
