"""Checks of an exported checkpoint: does ambiguity show, and do two implementations agree?

Both run on the exported files, not on what training held in memory, and their figures go into the
model card whatever they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from routekeel.backends.base import Backend
from routekeel.backends.tinymoe.prompts import PROMPTS, Kind

SAMPLED_SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class PromptEntropy:
    """Mean next-token entropy (nats) over a prompt's completion, and whether that was right.

    `as_determined` compares the greedy completion with the prompt's `determined`; None if open.
    """

    id: str
    kind: Kind
    greedy_nats: float
    sampled_nats: float
    completion: str
    as_determined: bool | None


def completion_entropy(
    backend: Backend, index: int, temperature: float, seed: int
) -> tuple[float, str]:
    """(mean entropy, text) of one completion of prompt `index`.

    The mean runs over the distributions from which the completion's tokens were drawn: the first of
    them is the one after the last prompt token.
    """
    prompt = PROMPTS[index]
    entropy: list[float] = []
    generated: list[int] = []
    for chunk in backend.generate(prompt.request(temperature, seed)):
        if chunk.token_entropy is None:
            raise ValueError("the backend gives no token entropy")
        values = chunk.token_entropy.tolist()
        if chunk.phase == "prefill":
            entropy = values[-1:]
        else:
            entropy += values
            generated += chunk.token_ids.tolist()
    return float(np.mean(entropy)), backend.decode(generated)


def prompt_entropies(backend: Backend) -> list[PromptEntropy]:
    """Every bundled prompt, completed greedily once and sampled at temperature 1 a few times."""
    found = []
    for index, prompt in enumerate(PROMPTS):
        greedy, text = completion_entropy(backend, index, 0.0, 0)
        sampled = [completion_entropy(backend, index, 1.0, seed)[0] for seed in SAMPLED_SEEDS]
        right = None if prompt.determined is None else text.startswith(prompt.determined)
        mean = float(np.mean(sampled))
        found.append(PromptEntropy(prompt.id, prompt.kind, greedy, mean, text, right))
    return found


def mean_nats(found: list[PromptEntropy], kind: Kind, sampled: bool) -> float:
    """Mean over the prompts of `kind`, each prompt counting once."""
    mine = [one for one in found if one.kind == kind]
    return float(np.mean([one.sampled_nats if sampled else one.greedy_nats for one in mine]))


def overlap(found: list[PromptEntropy]) -> float:
    """P(an ambiguous prompt has more greedy entropy than a clear one); 0.5 is chance."""
    high = np.array([one.greedy_nats for one in found if one.kind == "ambiguous"])
    low = np.array([one.greedy_nats for one in found if one.kind == "clear"])
    return float(np.mean(high[:, None] > low[None, :]))


@torch.no_grad()
def transformers_difference(model: Any, backend: Backend) -> npt.NDArray[np.float64]:
    """Largest |difference| of the router logits per layer, over all positions of all prompts.

    `model` is transformers' MixtralForCausalLM of the same checkpoint in float32, which sees each
    sequence in one pass; the backend saw the prompt in one pass and then one token at a time.
    """
    model.eval()
    worst = np.zeros(len(backend.facts.layers))
    for prompt in PROMPTS:
        chunks = list(backend.generate(prompt.request()))
        token_ids = torch.from_numpy(np.concatenate([c.token_ids for c in chunks])).long()
        ours = np.concatenate([chunk.logits for chunk in chunks])
        out = model(input_ids=token_ids[None], output_router_logits=True)
        theirs = torch.stack(out.router_logits, dim=1).numpy()
        worst = np.maximum(worst, np.abs(ours - theirs).max(axis=(0, 2)))
    return worst
