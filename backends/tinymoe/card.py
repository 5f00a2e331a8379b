"""The model card: what the checkpoint is, how it was made, and what was measured on it.

Rendered, never edited by hand: a figure that nothing measured cannot get in.
"""

from __future__ import annotations

import math
import platform
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import numpy.typing as npt

from routekeel.backends.tinymoe.corpus import HEADLINE_SOURCES, WEIGHTS, Corpus
from routekeel.backends.tinymoe.measure import HeldOut
from routekeel.backends.tinymoe.recipe import Recipe
from routekeel.backends.tinymoe.verify import PromptEntropy, mean_nats, overlap

SOURCE_TEXT = {
    "code": "Python's standard library source (no tests, no codec tables)",
    "licences": "the system's licence texts (/usr/share/common-licenses)",
    "arithmetic": "generated sums, differences and products",
    "json": "generated JSON records",
    "sentences": "generated English: determined facts and sequences, sentences left open",
}
HELD_OUT_TEXT = {
    "code": "5% of files, by hash of the path",
    "licences": "whole families: Artistic, CC0",
    "arithmetic": "5% of operand pairs, by hash",
    "json": "5% of records, by hash",
    "sentences": "5% of passages of several sentences, by hash (words and facts are training's)",
}


@dataclass(frozen=True)
class Figures:
    """All that the card states."""

    recipe: Recipe
    step: int
    seconds: float
    parameters: int
    sha256: str
    date: str
    held_out: HeldOut
    prompts: list[PromptEntropy]
    difference: npt.NDArray[np.float64]
    data: Corpus


def _rows(rows: list[list[str]]) -> list[str]:
    head, *body = rows
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *body)]


def _summary(f: Figures) -> list[str]:
    r = f.recipe
    trained = f.step * r.batch * r.window_tokens
    return [
        "# routekeel-tinymoe",
        "",
        f"A Mixtral-shaped language model over bytes, small enough for a test: {f.parameters:,} "
        f"parameters, {r.layers} layers × {r.experts} experts, top-{r.top_k}, hidden size "
        f"{r.hidden}, {r.context_tokens} tokens of context. It exists so that routekeel's tests "
        "and demo watch routers that were trained. It is good for nothing else.",
        "",
        "It was trained from random weights with routekeel's own code on text that any machine "
        "has or generates; nothing was downloaded. This page is written by the export.",
        "",
        *_rows(
            [
                ["", ""],
                ["command", "`make tinymoe` (`python -m routekeel.backends.tinymoe.train`)"],
                ["date", f.date],
                ["seed", str(r.seed)],
                ["steps", f"{f.step:,} of {r.steps:,}, {r.batch} × {r.window_tokens} bytes each"],
                [
                    "bytes seen",
                    f"{trained:,} in {f.seconds / 60:.0f} min of steps",
                ],
                ["loss", f"next byte + {r.router_aux_coefficient} × load balance, per layer"],
                ["optimiser", f"AdamW, cosine from {r.learning_rate} to {r.learning_rate_floor}"],
                ["weights", f"float16, SHA-256 `{f.sha256}`"],
                ["revision", f"`{f.sha256[:12]}`"],
                ["corpus", f"SHA-256 `{f.data.digest}`"],
                ["versions", _versions()],
            ]
        ),
        "",
    ]


def _versions() -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "numpy"))
    return f"Python {platform.python_version()}, {packages}"


def _held_out(f: Figures) -> list[str]:
    table = [["source", "share of training", "held out", "shared lines", "nats/byte"]]
    for source, nats in f.held_out.nats_per_byte.items():
        table.append(
            [
                SOURCE_TEXT[source],
                f"{WEIGHTS[source]:.0%}",
                HELD_OUT_TEXT[source],
                f"{f.data.shared_line_share[source]:.1%}",
                f"{nats:.3f}",
            ]
        )
    return [
        "## Held-out loss",
        "",
        f"**{f.held_out.headline:.3f} nats/byte** over {', '.join(HEADLINE_SOURCES)}, weighted by "
        "their share of training. The sentences are left out of it: they repeat a small set of "
        "facts by design, so their figure says nothing of generalisation.",
        "",
        *_rows(table),
        "",
        'No document is on both sides. "Shared lines" is the share of held-out lines of 40 bytes '
        "or more that occur in training word for word all the same: boilerplate, and modules that "
        f"copy from one another. Measured on {f.held_out.tokens:,} bytes with the float16 weights.",
        "",
    ]


def _routers(f: Figures) -> list[str]:
    uniform = math.log(f.recipe.experts)
    experts = [f"e{index}" for index in range(f.recipe.experts)]
    table = [["layer", *experts, "max/mean", "entropy (nats)", "of ln E"]]
    for layer, share in enumerate(f.held_out.load):
        entropy = float(f.held_out.router_entropy[layer])
        table.append(
            [
                str(layer),
                *(f"{value:.3f}" for value in share),
                f"{f.held_out.load_max_over_mean[layer]:.2f}",
                f"{entropy:.3f}",
                f"{entropy / uniform:.2f}",
            ]
        )
    return [
        "## Routers",
        "",
        f"Share of the top-{f.recipe.top_k} choices per expert on held-out text (balanced: "
        f"{1 / f.recipe.experts:.3f}), and the mean entropy of softmax(router logits) (uniform: "
        f"ln {f.recipe.experts} = {uniform:.3f}).",
        "",
        *_rows(table),
        "",
        "Against transformers' `output_router_logits` on the bundled prompts, the NumPy reference "
        "engine's router logits differ by at most "
        + ", ".join(f"{value:.1e}" for value in f.difference)
        + " in layers 0 to "
        + f"{f.recipe.layers - 1}.",
        "",
    ]


def _ambiguity(f: Figures) -> list[str]:
    table = [["prompt", "greedy", "sampled", "greedy completion", "as determined"]]
    marks = {True: "yes", False: "**no**", None: "open"}
    for one in f.prompts:
        text = one.completion.replace("\n", "⏎").replace("|", "\\|").replace("`", "'")
        nats = [f"{one.greedy_nats:.3f}", f"{one.sampled_nats:.3f}"]
        table.append([one.id, *nats, f"`{text}`", marks[one.as_determined]])
    judged = [one.as_determined for one in f.prompts if one.as_determined is not None]
    means = {
        (kind, sampled): mean_nats(f.prompts, kind, sampled)
        for kind in ("clear", "ambiguous")
        for sampled in (False, True)
    }
    return [
        "## Bundled prompts",
        "",
        "Mean next-token entropy (nats) over the completion, each prompt counting once: greedy, "
        f"clear {means['clear', False]:.3f} and ambiguous {means['ambiguous', False]:.3f}; sampled "
        f"at temperature 1, clear {means['clear', True]:.3f} and ambiguous "
        f"{means['ambiguous', True]:.3f}. A random ambiguous prompt has the higher greedy entropy "
        f"with probability {overlap(f.prompts):.2f} (n = {len(f.prompts)} prompts, written for "
        "this purpose: the contrast is in the data; nothing is said about language at large). "
        f"{sum(judged)} of {len(judged)} clear prompts are completed as their text determines.",
        "",
        *_rows(table),
        "",
    ]


def render(figures: Figures) -> str:
    """The card as Markdown."""
    parts = (_summary, _held_out, _routers, _ambiguity)
    return "\n".join(line for part in parts for line in part(figures)).rstrip() + "\n"
