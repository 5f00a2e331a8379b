"""What the model card reports: held-out loss by source, load per expert, entropy of the routers.

The windows are fixed by a seed of their own and come only from held-out text, so two checkpoints
are compared on the same bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from routekeel.backends.tinymoe.corpus import HEADLINE_SOURCES, SOURCES, WEIGHTS, Corpus

WINDOW_SEED = 1_000_003
BATCH = 16


@dataclass(frozen=True)
class HeldOut:
    """Held-out figures. `load` [L, E] are shares of top-k choices; the entropies are in nats."""

    nats_per_byte: dict[str, float]
    headline: float
    load: npt.NDArray[np.float64]
    router_entropy: npt.NDArray[np.float64]
    tokens: int

    @property
    def load_max_over_mean(self) -> npt.NDArray[np.float64]:
        """Per layer, the busiest expert's share times E: 1 is perfect balance, E is collapse."""
        return np.asarray(self.load.max(axis=1) * self.load.shape[1], dtype=np.float64)


def balance_loss(router_logits: tuple[torch.Tensor, ...], top_k: int) -> torch.Tensor:
    """Load-balancing loss, mean over the layers of E · Σ_e f_e P_e (1 when balanced).

    f_e is the share of top-k choices that fell on e, P_e the mean probability (Fedus et al., 2021).
    Taken per layer: over all layers at once, one layer's collapse could hide another's.
    """
    losses = []
    for logits in router_logits:
        weights = torch.softmax(logits.float(), dim=-1)
        experts = weights.shape[-1]
        chosen = torch.topk(weights, top_k, dim=-1).indices
        share = torch.bincount(chosen.flatten(), minlength=experts).float() / chosen.numel()
        losses.append(experts * torch.sum(share * weights.mean(dim=0)))
    return torch.stack(losses).mean()


def headline_of(nats: dict[str, float]) -> float:
    """Mean over the headline sources, weighted by their share of training (renormalised)."""
    names = [name for name in HEADLINE_SOURCES if name in nats]
    total = sum(WEIGHTS[name] for name in names)
    return sum(nats[name] * WEIGHTS[name] for name in names) / total


def windows(
    text: npt.NDArray[np.uint16], count: int, length: int, seed: int
) -> npt.NDArray[np.int64]:
    """`count` windows [count, length + 1] at random starts of held-out text."""
    starts = np.random.default_rng(seed).integers(0, len(text) - length - 1, size=count)
    return np.stack([text[start : start + length + 1] for start in starts]).astype(np.int64)


@torch.no_grad()
def measure(model: Any, corpus: Corpus, windows_per_source: int, length: int) -> HeldOut:
    """Held-out figures of `model` (a MixtralForCausalLM) over every source that has text."""
    was_training = model.training
    model.eval()
    top_k, experts = model.config.num_experts_per_tok, model.config.num_local_experts
    layers = model.config.num_hidden_layers
    counts = np.zeros((layers, experts))
    entropy = np.zeros(layers)
    nats: dict[str, float] = {}
    tokens = 0
    for index, source in enumerate(name for name in SOURCES if name in corpus.held_out):
        rows = windows(corpus.held_out[source], windows_per_source, length, WINDOW_SEED + index)
        loss = 0.0
        for start in range(0, len(rows), BATCH):
            part = torch.from_numpy(rows[start : start + BATCH])
            out = model(input_ids=part[:, :-1], output_router_logits=True)
            flat = out.logits.reshape(-1, out.logits.shape[-1]).float()
            targets = part[:, 1:].reshape(-1)
            loss += float(torch.nn.functional.cross_entropy(flat, targets, reduction="sum"))
            for layer, logits in enumerate(out.router_logits):
                weights = torch.softmax(logits.float(), dim=-1)
                chosen = torch.topk(weights, top_k, dim=-1).indices.flatten()
                counts[layer] += torch.bincount(chosen, minlength=experts).numpy()
                entropy[layer] += float(torch.special.entr(weights).sum())
        nats[source] = loss / (len(rows) * length)
        tokens += len(rows) * length
    model.train(was_training)
    load = counts / counts.sum(axis=1, keepdims=True)
    return HeldOut(nats, headline_of(nats), load, entropy / tokens, tokens)


def describe(held_out: HeldOut) -> str:
    """One line for the training log."""
    by_source = "  ".join(f"{name} {value:.3f}" for name, value in held_out.nats_per_byte.items())
    worst = float(held_out.load_max_over_mean.max())
    uniform = math.log(held_out.load.shape[1])
    share = float(held_out.router_entropy.mean()) / uniform
    return (
        f"held-out {held_out.headline:.3f} nats/byte ({by_source})  "
        f"load max/mean {worst:.2f}  router entropy {share:.2f} of ln E"
    )
