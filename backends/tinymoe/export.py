"""Writes the checkpoint: config, float16 weights, tokenizer and the model card with its figures.

Every figure in the card is measured here, on the files as written (the weights rounded to float16),
so that the card cannot describe another model than the one beside it.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from routekeel.backends.checkpoint import BUNDLED
from routekeel.backends.reference import open_backend
from routekeel.backends.tinymoe.card import Figures, render
from routekeel.backends.tinymoe.corpus import Corpus
from routekeel.backends.tinymoe.measure import measure
from routekeel.backends.tinymoe.recipe import Recipe
from routekeel.backends.tinymoe.verify import prompt_entropies, transformers_difference
from routekeel.backends.tinymoe.vocabulary import write_tokenizer

CHECKPOINT = BUNDLED
MODEL_NAME = "routekeel-tinymoe"
WINDOWS_PER_SOURCE = 200


def write_weights(model: Any, folder: Path) -> None:
    """Write float16 weights and config.json in the layout that engines read."""
    folder.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(folder)
    model.float()
    (folder / "generation_config.json").unlink(missing_ok=True)
    path = folder / "config.json"
    config = json.loads(path.read_text("utf-8"))
    config["model_name"] = MODEL_NAME
    # Engines older than the `rope_parameters` key read this one.
    config["rope_theta"] = config["rope_parameters"]["rope_theta"]
    config["torch_dtype"] = "float16"
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (folder / "model.safetensors").chmod(0o644)


def export(recipe: Recipe, step: int, seconds: float, model: Any, data: Corpus, out: Path) -> str:
    """Write the checkpoint of `model` to `out`, measure it, write its card; returns the card.

    The model is left in float32 with its weights rounded to float16.
    """
    from transformers import MixtralForCausalLM

    write_weights(model, out)
    write_tokenizer(out, recipe.context_tokens)
    written = MixtralForCausalLM.from_pretrained(out, dtype=torch.float32)
    reference = open_backend(out)
    card = render(
        Figures(
            recipe=recipe,
            step=step,
            seconds=seconds,
            parameters=sum(p.numel() for p in model.parameters()),
            sha256=hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest(),
            date=datetime.datetime.now(datetime.UTC).date().isoformat(),
            held_out=measure(written, data, WINDOWS_PER_SOURCE, recipe.window_tokens),
            prompts=prompt_entropies(reference),
            difference=transformers_difference(written, reference),
            data=data,
        )
    )
    (out / "README.md").write_text(card, encoding="utf-8")
    return card
