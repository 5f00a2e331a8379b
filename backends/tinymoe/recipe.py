"""Every number that decides what the trained model is: shape, data, schedule, seed.

They stand in one frozen value, which travels into the training state and the model card, so that a
run is never resumed under other numbers than it began with.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from routekeel.backends.tinymoe.vocabulary import END_OF_TEXT_ID, VOCAB_SIZE


@dataclass(frozen=True)
class Recipe:
    """The model's shape and its training; the defaults are the bundled checkpoint."""

    seed: int = 20
    layers: int = 4
    experts: int = 8
    top_k: int = 2
    hidden: int = 128
    intermediate: int = 256
    heads: int = 4
    kv_heads: int = 2
    context_tokens: int = 1024
    steps: int = 3000
    batch: int = 16
    window_tokens: int = 256
    learning_rate: float = 3e-3
    learning_rate_floor: float = 3e-5
    warmup_steps: int = 100
    weight_decay: float = 0.1
    gradient_norm_max: float = 1.0
    router_aux_coefficient: float = 0.01

    def learning_rate_at(self, step: int) -> float:
        """Linear warm-up, then half a cosine down to the floor."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        span = self.learning_rate - self.learning_rate_floor
        return self.learning_rate_floor + span * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))

    def model_config(self) -> dict[str, Any]:
        """The arguments of MixtralConfig."""
        return {
            "vocab_size": VOCAB_SIZE,
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "num_local_experts": self.experts,
            "num_experts_per_tok": self.top_k,
            "max_position_embeddings": self.context_tokens,
            "router_aux_loss_coef": self.router_aux_coefficient,
            "bos_token_id": END_OF_TEXT_ID,
            "eos_token_id": END_OF_TEXT_ID,
        }

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the training state and the model card."""
        return asdict(self)
