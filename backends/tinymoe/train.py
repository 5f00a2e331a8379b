"""Train the bundled model: seeded, resumable, on a CPU in about half an hour.

`python -m routekeel.backends.tinymoe.train` picks up where it stopped: weights, optimiser, random
state and data position are saved together, and Ctrl-C saves before it leaves.
"""

from __future__ import annotations

import argparse
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from routekeel.backends.tinymoe import corpus as text
from routekeel.backends.tinymoe.export import CHECKPOINT, export
from routekeel.backends.tinymoe.measure import balance_loss, describe, measure
from routekeel.backends.tinymoe.recipe import Recipe

STATE = Path(".routekeel/tinymoe/state.pt")
SAVE_EVERY_STEPS = 100
MEASURE_EVERY_STEPS = 250
WINDOWS_WHILE_TRAINING = 24
BARS = "▁▂▃▄▅▆▇█"


@dataclass
class Run:
    """What training holds between two steps."""

    recipe: Recipe
    model: Any
    optimizer: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    measured: list[tuple[int, float]] = field(default_factory=list)


def sparkline(values: list[float], width: int = 32) -> str:
    """The course of `values` as bars, averaged down to `width` of them."""
    if not values:
        return ""
    size = max(1, -(-len(values) // width))
    means = [
        sum(values[at : at + size]) / len(values[at : at + size])
        for at in range(0, len(values), size)
    ]
    low, span = min(means), max(max(means) - min(means), 1e-9)
    return "".join(BARS[int((mean - low) / span * (len(BARS) - 1))] for mean in means)


def new_run(recipe: Recipe) -> Run:
    """A fresh model and its optimiser; norms and biases are not decayed."""
    from transformers import MixtralConfig, MixtralForCausalLM

    torch.manual_seed(recipe.seed)
    model = MixtralForCausalLM(MixtralConfig(**recipe.model_config()))
    decayed = [p for p in model.parameters() if p.dim() >= 2]
    plain = [p for p in model.parameters() if p.dim() < 2]
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.95))
    return Run(recipe, model, optimizer)


def save(run: Run, path: Path) -> None:
    """Write the whole state beside `path`, then put it in place: a crash leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(
        {
            "recipe": run.recipe.as_dict(),
            "model": run.model.state_dict(),
            "optimizer": run.optimizer.state_dict(),
            "rng": torch.get_rng_state(),
            "step": run.step,  # the data position too: batches are a function of seed and step
            "seconds": run.seconds,
            "losses": run.losses,
            "measured": run.measured,
        },
        partial,
    )
    partial.replace(path)


def resume(run: Run, path: Path) -> None:
    """Load the state at `path` into `run`. Raises ValueError if it belongs to another recipe."""
    state = torch.load(path, weights_only=True)
    if state["recipe"] != run.recipe.as_dict():
        raise ValueError(f"{path} was trained under another recipe; move it away to start anew")
    run.model.load_state_dict(state["model"])
    run.optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["rng"])
    run.step, run.seconds = state["step"], state["seconds"]
    run.losses, run.measured = state["losses"], [tuple(pair) for pair in state["measured"]]


def train_step(run: Run, data: text.Corpus) -> float:
    """One optimiser step; returns the next-byte loss in nats (without the balance term)."""
    recipe = run.recipe
    for group in run.optimizer.param_groups:
        group["lr"] = recipe.learning_rate_at(run.step)
    rows = torch.from_numpy(
        text.window_batch(data, recipe.seed, run.step, recipe.batch, recipe.window_tokens)
    )
    out = run.model(input_ids=rows[:, :-1], output_router_logits=True, use_cache=False)
    nll = torch.nn.functional.cross_entropy(
        out.logits.reshape(-1, out.logits.shape[-1]), rows[:, 1:].reshape(-1)
    )
    loss = nll + recipe.router_aux_coefficient * balance_loss(out.router_logits, recipe.top_k)
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(run.model.parameters(), recipe.gradient_norm_max)
    run.optimizer.step()
    run.step += 1
    return float(nll.detach())


def loop(run: Run, data: text.Corpus, until: int, path: Path, console: Console) -> bool:
    """Train up to `until`; returns False when a signal asked to stop, after saving."""
    stop: list[int] = []

    def ask_to_stop(number: int, _frame: FrameType | None) -> None:
        stop.append(number)

    before = {number: signal.signal(number, ask_to_stop) for number in (2, 15)}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    try:
        with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
            task = progress.add_task("training", total=until, completed=run.step)
            while run.step < until and not stop:
                began = time.monotonic()
                run.losses.append(train_step(run, data))
                run.seconds += time.monotonic() - began
                recent = sum(run.losses[-20:]) / len(run.losses[-20:])
                line = f"{sparkline(run.losses)} {recent:.3f} nats/byte"
                progress.update(task, completed=run.step, description=line)
                if run.step % MEASURE_EVERY_STEPS == 0:
                    held = measure(
                        run.model, data, WINDOWS_WHILE_TRAINING, run.recipe.window_tokens
                    )
                    run.measured.append((run.step, held.headline))
                    speed = run.step * run.recipe.batch * run.recipe.window_tokens / run.seconds
                    console.print(
                        f"step {run.step}  {line}  {describe(held)}  {speed:.0f} bytes/s",
                        soft_wrap=True,
                    )
                if run.step % SAVE_EVERY_STEPS == 0:
                    save(run, path)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        save(run, path)
    return not stop


def main(arguments: list[str] | None = None) -> int:
    """Command line: train or resume, then export the checkpoint with its card."""
    parser = argparse.ArgumentParser(prog="python -m routekeel.backends.tinymoe.train")
    parser.add_argument("--steps", type=int, default=Recipe.steps, help="length of the schedule")
    parser.add_argument("--until", type=int, help="stop after this step, before the schedule ends")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves torch's own")
    parser.add_argument("--state", type=Path, default=STATE, help="where training is saved")
    parser.add_argument("--out", type=Path, default=CHECKPOINT, help="the exported checkpoint")
    parser.add_argument("--export-only", action="store_true", help="export the saved state")
    options = parser.parse_args(arguments)
    console = Console()
    if options.threads:
        torch.set_num_threads(options.threads)
    recipe = Recipe(steps=options.steps)
    data = text.build(recipe.seed)
    run = new_run(recipe)
    if options.state.exists():
        resume(run, options.state)
        console.print(f"resumed at step {run.step} from {options.state}")
    if not options.export_only:
        until = min(recipe.steps, options.until or recipe.steps)
        if not loop(run, data, until, options.state, console):
            console.print(f"stopped at step {run.step}; the same command goes on from here")
            return 130
    console.print(export(recipe, run.step, run.seconds, run.model, data, options.out), markup=False)
    console.print(f"exported to {options.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
