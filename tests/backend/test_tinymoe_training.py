"""Training goes on where it stopped: stop and resume give the very weights of a run in one go."""

from __future__ import annotations

import dataclasses
import signal
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from rich.console import Console

from routekeel.backends.tinymoe import corpus, train
from routekeel.backends.tinymoe.measure import balance_loss, measure
from routekeel.backends.tinymoe.recipe import Recipe

pytestmark = pytest.mark.backend

RECIPE = Recipe(layers=2, hidden=32, intermediate=32, heads=2, kv_heads=1, steps=6, batch=2,
                window_tokens=24, warmup_steps=2)  # fmt: skip


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch) -> corpus.Corpus:
    monkeypatch.setattr(corpus, "SOURCES", ("arithmetic", "json"))
    monkeypatch.setattr(corpus, "GENERATED_BYTES", {"arithmetic": 30_000, "json": 30_000})
    return corpus.build(RECIPE.seed)


def test_resumed_training_is_the_same_training(data: corpus.Corpus, tmp_path: Path) -> None:
    console = Console(quiet=True)
    whole = train.new_run(RECIPE)
    assert train.loop(whole, data, 6, tmp_path / "whole.pt", console)
    first = train.new_run(RECIPE)
    assert train.loop(first, data, 3, tmp_path / "parts.pt", console)
    second = train.new_run(RECIPE)
    train.resume(second, tmp_path / "parts.pt")
    assert second.step == 3
    assert train.loop(second, data, 6, tmp_path / "parts.pt", console)
    assert second.losses == whole.losses
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[name]), name


def test_ctrl_c_saves_before_it_leaves(
    data: corpus.Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train.new_run(RECIPE)
    step = train.train_step

    def interrupted(run: train.Run, data: corpus.Corpus) -> float:
        signal.raise_signal(signal.SIGINT)
        return step(run, data)

    monkeypatch.setattr(train, "train_step", interrupted)
    assert not train.loop(run, data, 6, tmp_path / "state.pt", Console(quiet=True))
    saved = train.new_run(RECIPE)
    train.resume(saved, tmp_path / "state.pt")
    assert saved.step == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_another_recipe_is_not_resumed(tmp_path: Path) -> None:
    train.save(train.new_run(RECIPE), tmp_path / "state.pt")
    other = train.new_run(dataclasses.replace(RECIPE, seed=RECIPE.seed + 1))
    with pytest.raises(ValueError, match="another recipe"):
        train.resume(other, tmp_path / "state.pt")


def test_balance_loss_is_one_when_balanced_and_e_over_k_when_collapsed() -> None:
    balanced = torch.eye(4).repeat(2, 1) * 100
    assert balance_loss((balanced,), top_k=1).item() == pytest.approx(1.0)
    collapsed = torch.tensor([[100.0, 0, 0, 0]]).repeat(8, 1)
    assert balance_loss((collapsed,), top_k=1).item() == pytest.approx(4.0)
    both = balance_loss((balanced, collapsed), top_k=1).item()
    assert both == pytest.approx(2.5)  # a balanced layer cannot hide a collapsed one


def test_loads_are_shares_and_entropy_is_bounded(data: corpus.Corpus) -> None:
    held = measure(train.new_run(RECIPE).model, data, 4, RECIPE.window_tokens)
    assert held.load.shape == (2, 8)
    assert held.load.sum(axis=1) == pytest.approx(1.0)
    assert ((held.router_entropy > 0) & (held.router_entropy <= 2.0795)).all()
    assert held.tokens == 2 * 4 * RECIPE.window_tokens
    assert set(held.nats_per_byte) == {"arithmetic", "json"}
