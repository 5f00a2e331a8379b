"""The bundled model's text and vocabulary: disjoint splits, repeatable batches, files as coded."""

from __future__ import annotations

import hashlib
import json
import random

import numpy as np
import pytest

from routekeel.backends.checkpoint import BUNDLED
from routekeel.backends.tinymoe import corpus
from routekeel.backends.tinymoe.prompts import PROMPTS
from routekeel.backends.tinymoe.recipe import Recipe
from routekeel.backends.tinymoe.sentences import CAPITALS, fact, passage, sequence
from routekeel.backends.tinymoe.vocabulary import (
    END_OF_TEXT_ID,
    VOCAB_SIZE,
    byte_alphabet,
    decode,
    encode,
    tokenizer_json,
)


def test_a_token_is_a_byte() -> None:
    text = "naïve → 3 €\n"
    assert encode(text) == list(text.encode())
    assert decode([*encode(text), END_OF_TEXT_ID]) == text
    assert decode([0xE2, 0x82]) == "�"
    vocab = tokenizer_json()["model"]["vocab"]
    assert sorted(vocab.values()) == list(range(VOCAB_SIZE))
    assert len(set(byte_alphabet())) == 256
    assert vocab["A"] == ord("A")


def test_the_published_tokenizer_is_the_rendered_one() -> None:
    assert json.loads((BUNDLED / "tokenizer.json").read_text("utf-8")) == tokenizer_json()


def test_the_card_is_of_these_weights() -> None:
    digest = hashlib.sha256((BUNDLED / "model.safetensors").read_bytes()).hexdigest()
    assert digest in (BUNDLED / "README.md").read_text("utf-8")


@pytest.mark.parametrize("source", ["arithmetic", "json", "sentences"])
def test_generated_splits_are_disjoint_and_repeatable(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(corpus.GENERATED_BYTES, source, 200_000)
    documents = list(corpus.generated_documents(source, seed=5))
    assert documents == list(corpus.generated_documents(source, seed=5))
    train = {text for split, text in documents if split == "train"}
    held_out = {text for split, text in documents if split == "held_out"}
    assert held_out
    assert train.isdisjoint(held_out)
    if source == "arithmetic":
        lines = [
            {line for text in side for line in text.split(b"\n")} for side in (train, held_out)
        ]
        assert lines[0] & lines[1] <= {b""}


def test_held_out_is_one_in_twenty() -> None:
    share = np.mean([corpus.split_of(str(n)) == "held_out" for n in range(20_000)])
    assert abs(share - corpus.HELD_OUT_SHARE) < 0.005


def test_arithmetic_is_right() -> None:
    rng = random.Random(6)
    for _ in range(500):
        left, answer = corpus.arithmetic_line(rng)[1].split(" = ")
        a, operator, b = left.split()
        expected = {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[operator]
        assert int(answer) == expected


def test_a_step_always_sees_the_same_windows() -> None:
    text = {"json": np.arange(5000, dtype=np.uint16) % 250}
    data = corpus.Corpus(text, text, "", {})
    first = corpus.window_batch(data, seed=1, step=7, batch=4, length=16)
    assert first.shape == (4, 17)
    assert np.array_equal(first, corpus.window_batch(data, 1, 7, 4, 16))
    assert not np.array_equal(first, corpus.window_batch(data, 1, 8, 4, 16))
    assert set(np.diff(first, axis=1).ravel().tolist()) <= {1, -249}


def test_shared_lines_counts_long_lines_only() -> None:
    long = b"x" * 40
    assert (
        corpus.shared_lines([long + b"\nshort"], [b"  " + long + b"\nshort\n" + b"y" * 50]) == 0.5
    )
    assert corpus.shared_lines([], []) == 0.0


def test_facts_end_the_one_way_and_passages_are_documents() -> None:
    rng = random.Random(8)
    for _ in range(300):
        assert fact(rng).endswith(".")
        assert sequence(rng).endswith(".")
        assert passage(rng).endswith(".\n")
    assert CAPITALS["France"] == "Paris"


def test_prompts_are_two_dozen_and_unlike() -> None:
    assert len(PROMPTS) == 24
    assert len({p.id for p in PROMPTS}) == len({p.text for p in PROMPTS}) == 24
    assert sum(p.kind == "clear" for p in PROMPTS) == 12
    assert all((p.kind == "clear") == (p.determined is not None) for p in PROMPTS)
    request = PROMPTS[0].request(temperature=0.5, seed=3, chunk_tokens=4)
    assert (request.session_id, request.chunk_tokens) == (PROMPTS[0].id, 4)


def test_the_learning_rate_warms_up_and_falls_to_its_floor() -> None:
    recipe = Recipe()
    rates = [recipe.learning_rate_at(step) for step in range(recipe.steps + 1)]
    assert max(rates) == rates[recipe.warmup_steps] == recipe.learning_rate
    assert rates[-1] == pytest.approx(recipe.learning_rate_floor)
    after = rates[recipe.warmup_steps :]
    assert after == sorted(after, reverse=True)
