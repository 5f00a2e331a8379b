"""The NumPy engine: causal, cached and uncached alike, exact in positions, repeatable by seed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from routekeel.backends import catalog
from routekeel.backends.base import GenerateRequest, RouterChunk
from routekeel.backends.checkpoint import Checkpoint, open_checkpoint
from routekeel.backends.mixtral_numpy import Cache, Mixtral, entropy_nats, rotate
from routekeel.backends.reference import ReferenceBackend, open_backend
from routekeel.backends.tinymoe.prompts import PROMPTS
from routekeel.backends.tinymoe.vocabulary import END_OF_TEXT_ID

TEXT = "import numpy as np\nfor row in rows:"
TOLERANCE = 2e-5  # float32 sums in another order; logits are of order 1 to 10


@pytest.fixture(scope="module")
def backend() -> ReferenceBackend:
    return open_backend()


@pytest.fixture(scope="module")
def model() -> Mixtral:
    return Mixtral(open_checkpoint(None))


def run(backend: ReferenceBackend, **changes: object) -> list[RouterChunk]:
    options: dict[str, object] = {"session_id": "s", "request_id": "r", "prompt": TEXT}
    return list(backend.generate(GenerateRequest(**{**options, **changes})))  # type: ignore[arg-type]


def joined(chunks: list[RouterChunk]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Token ids, logits and entropies over all chunks."""
    entropy = [c.token_entropy for c in chunks if c.token_entropy is not None]
    assert len(entropy) == len(chunks)
    return (
        np.concatenate([c.token_ids for c in chunks]),
        np.concatenate([c.logits for c in chunks]),
        np.concatenate(entropy),
    )


def test_the_cache_changes_nothing(model: Mixtral) -> None:
    token_ids = list(TEXT.encode())
    whole, whole_routes = model.forward(token_ids, Cache())
    cache = Cache()
    parts = [model.forward(part, cache) for part in (token_ids[:5], token_ids[5:6], token_ids[6:])]
    assert cache.tokens == len(token_ids)
    assert np.abs(np.concatenate([p[0] for p in parts]) - whole).max() < TOLERANCE
    assert np.abs(np.concatenate([p[1] for p in parts]) - whole_routes).max() < TOLERANCE


def test_no_token_sees_the_future(model: Mixtral) -> None:
    token_ids = list(TEXT.encode())
    other = [*token_ids[:-1], ord("#")]
    _, routes = model.forward(token_ids, Cache())
    _, changed = model.forward(other, Cache())
    assert np.abs(routes[:-1] - changed[:-1]).max() < TOLERANCE
    assert np.abs(routes[-1] - changed[-1]).max() > 0.01


def test_rotation_keeps_norms_and_depends_on_distance_only() -> None:
    rng = np.random.default_rng(3)
    q, k = rng.normal(size=(2, 1, 1, 32)).astype(np.float32)
    near = np.sum(rotate(q, 5, 1e4) * rotate(k, 2, 1e4))
    far = np.sum(rotate(q, 45, 1e4) * rotate(k, 42, 1e4))
    assert np.allclose(near, far, atol=1e-4)
    assert np.allclose(np.linalg.norm(rotate(q, 77, 1e4)), np.linalg.norm(q), rtol=1e-5)


def test_entropy_against_its_definition() -> None:
    logits = np.random.default_rng(4).normal(scale=5, size=(20, 257))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = entropy_nats(logits.astype(np.float32))
    assert np.allclose(found, -(p * np.log(p)).sum(axis=1), rtol=1e-4, atol=1e-6)
    assert entropy_nats(np.array([[1e4, 0, 0]], np.float32))[0] == 0
    assert np.isclose(entropy_nats(np.zeros((1, 8), np.float32))[0], np.log(8))


@pytest.mark.parametrize("chunk_tokens", [1, 3, 8, 100])
def test_the_chunk_size_does_not_change_a_byte(
    backend: ReferenceBackend, chunk_tokens: int
) -> None:
    chunks = run(backend, chunk_tokens=chunk_tokens, max_new_tokens=10)
    expected = joined(run(backend, max_new_tokens=10))
    for mine, theirs in zip(joined(chunks), expected, strict=True):
        assert mine.tobytes() == theirs.tobytes()
    starts = np.cumsum([0, *(chunk.steps for chunk in chunks)])
    assert [chunk.position_start for chunk in chunks] == starts[:-1].tolist()


@pytest.mark.parametrize(("max_new_tokens", "rows"), [(0, 0), (1, 0), (2, 1), (10, 9)])
def test_the_last_token_is_drawn_but_not_consumed(
    backend: ReferenceBackend, max_new_tokens: int, rows: int
) -> None:
    chunks = run(backend, max_new_tokens=max_new_tokens)
    assert sum(c.steps for c in chunks if c.phase == "prefill") == len(TEXT)
    assert sum(c.steps for c in chunks if c.phase == "decode") == rows


def test_generation_ends_with_the_end_of_text(backend: ReferenceBackend) -> None:
    prompt = next(p for p in PROMPTS if p.id == "clear-capital-france")
    token_ids, _, _ = joined(list(backend.generate(prompt.request())))
    assert END_OF_TEXT_ID not in token_ids
    assert len(token_ids) < len(prompt.text) + prompt.max_new_tokens - 1
    assert backend.decode(token_ids.tolist()).endswith(".\n")


def test_a_seed_repeats_itself_even_when_requests_take_turns(backend: ReferenceBackend) -> None:
    requests = [
        GenerateRequest(f"s{seed}", "r", TEXT, 12, temperature=1.0, seed=seed) for seed in (1, 2)
    ]
    alone = [[c.token_ids.tolist() for c in backend.generate(request)] for request in requests]
    turns = zip(*(backend.generate(request) for request in requests), strict=False)
    in_turns = [[a.token_ids.tolist(), b.token_ids.tolist()] for a, b in turns]
    assert alone[0] != alone[1]
    for at, (first, second) in enumerate(in_turns):
        assert (first, second) == (alone[0][at], alone[1][at])


def test_gram_gives_distances_between_router_rows(
    backend: ReferenceBackend, model: Mixtral
) -> None:
    gram = backend.router_gram()
    assert gram.shape == (4, 8, 8)
    assert gram.dtype == np.float32
    for layer in backend.facts.layers:
        w = model.router_matrix(layer).astype(np.float64)
        k = gram[layer].astype(np.float64)
        distance = np.sqrt(k[0, 0] - 2 * k[0, 1] + k[1, 1])
        assert np.isclose(distance, np.linalg.norm(w[0] - w[1]), rtol=1e-4)


def test_facts_and_catalog_agree(backend: ReferenceBackend) -> None:
    facts = catalog.load("reference").facts
    assert facts == backend.facts
    assert (facts.layers, facts.experts, facts.top_k) == ((0, 1, 2, 3), 8, 2)
    assert len(facts.model_revision) == 12


def test_weights_are_read_from_the_format_itself(tmp_path: Path) -> None:
    values = np.arange(6, dtype="<f2").reshape(2, 3)
    header = json.dumps(
        {"__metadata__": {}, "a": {"dtype": "F16", "shape": [2, 3], "data_offsets": [0, 12]}}
    ).encode()
    raw = len(header).to_bytes(8, "little") + header + values.tobytes()
    (tmp_path / "model.safetensors").write_bytes(raw)
    found = Checkpoint(tmp_path).weights()
    assert found["a"].dtype == np.float32
    assert np.array_equal(found["a"], values.astype(np.float32))
    (tmp_path / "model.safetensors").write_bytes(raw.replace(b'"F16"', b'"BF6"'))
    with pytest.raises(ValueError, match="BF6"):
        Checkpoint(tmp_path).weights()


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ValueError, match="runs mixtral, not llama"):
        Mixtral(Checkpoint(tmp_path))
