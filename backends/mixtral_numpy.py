"""The forward pass of a Mixtral model in plain NumPy, written from the architecture, not an engine.

It exists to be an independent oracle: two implementations that share no code and agree on every
router logit are unlikely to be wrong in the same way. Jiang et al., "Mixtral of Experts" (2024).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from routekeel.backends.base import Float32
from routekeel.backends.checkpoint import Checkpoint

RMS_EPSILON = 1e-5
ROPE_THETA = 1e6


@dataclass
class Cache:
    """Keys and values of the tokens consumed so far: per layer [heads_kv, tokens, head_size]."""

    keys: list[Float32] = field(default_factory=list)
    values: list[Float32] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        """How many tokens were consumed: the position of the next one."""
        return self.keys[0].shape[1] if self.keys else 0


def rms_norm(x: Float32, weight: Float32, epsilon: float) -> Float32:
    """x / √(mean(x²) + ε) · weight, over the last axis (Zhang & Sennrich, 2019)."""
    scale = np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True) + epsilon)
    return np.asarray(x / scale * weight, dtype=np.float32)


def softmax(x: Float32) -> Float32:
    """Softmax over the last axis, shifted by the maximum so that it cannot overflow."""
    raised = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True), dtype=np.float32)


def entropy_nats(logits: Float32) -> Float32:
    """Entropy of softmax(logits) over the last axis, in nats: lse(z) − Σ p z, never below 0."""
    shifted = (logits - logits.max(axis=-1, keepdims=True)).astype(np.float64)
    raised = np.exp(shifted)
    total = raised.sum(axis=-1)
    value = np.log(total) - (raised * shifted).sum(axis=-1) / total
    return np.asarray(np.maximum(value, 0.0), dtype=np.float32)


def rotate(x: Float32, position: int, theta: float) -> Float32:
    """Rotary embedding of x [heads, T, d] from `position` on: (a, b) turned by m·θ^(−2i/d)."""
    half = x.shape[-1] // 2
    rate = theta ** (-np.arange(half) / half)
    angle = np.arange(position, position + x.shape[1])[:, None] * rate
    cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


class Mixtral:
    """RMSNorm, rotary grouped-query attention with a cache, top-k experts; float32, one text."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        """Read the weights. Raises ValueError for another architecture."""
        config: dict[str, Any] = checkpoint.config
        if config.get("model_type") != "mixtral":
            raise ValueError(f"the reference engine runs mixtral, not {config.get('model_type')}")
        self.layers: int = config["num_hidden_layers"]
        self.experts: int = config["num_local_experts"]
        self.top_k: int = config["num_experts_per_tok"]
        self.vocabulary_size: int = config["vocab_size"]
        self._heads: int = config["num_attention_heads"]
        self._kv_heads: int = config["num_key_value_heads"]
        self._epsilon: float = config.get("rms_norm_eps", RMS_EPSILON)
        self._theta: float = config.get("rope_theta", ROPE_THETA)
        self._weights = checkpoint.weights()

    def _linear(self, x: Float32, name: str) -> Float32:
        return np.asarray(x @ self._weights[f"{name}.weight"].T, dtype=np.float32)

    def router_matrix(self, layer: int) -> Float32:
        """W of the router, float32 [E, H]: its logits are W x."""
        return self._weights[f"model.layers.{layer}.block_sparse_moe.gate.weight"]

    def forward(self, token_ids: list[int], cache: Cache) -> tuple[Float32, Float32]:
        """Consume T tokens; returns next-token logits [T, V] and router logits [T, L, E]."""
        x = self._weights["model.embed_tokens.weight"][token_ids]
        position = cache.tokens
        routes: list[Float32] = []
        for layer in range(self.layers):
            name = f"model.layers.{layer}"
            norm = self._weights[f"{name}.input_layernorm.weight"]
            normed = rms_norm(x, norm, self._epsilon)
            x = x + self._attention(normed, f"{name}.self_attn", layer, position, cache)
            norm = self._weights[f"{name}.post_attention_layernorm.weight"]
            normed = rms_norm(x, norm, self._epsilon)
            logits = self._linear(normed, f"{name}.block_sparse_moe.gate")
            routes.append(logits)
            x = x + self._experts(normed, logits, f"{name}.block_sparse_moe.experts")
        x = rms_norm(x, self._weights["model.norm.weight"], self._epsilon)
        return self._linear(x, "lm_head"), np.stack(routes, axis=1)

    def _attention(self, x: Float32, name: str, layer: int, position: int, cache: Cache) -> Float32:
        steps = x.shape[0]

        def heads(part: str, count: int) -> Float32:
            return self._linear(x, f"{name}.{part}").reshape(steps, count, -1).swapaxes(0, 1)

        queries = rotate(heads("q_proj", self._heads), position, self._theta)
        keys = rotate(heads("k_proj", self._kv_heads), position, self._theta)
        values = heads("v_proj", self._kv_heads)
        if layer < len(cache.keys):
            keys = np.concatenate([cache.keys[layer], keys], axis=1)
            values = np.concatenate([cache.values[layer], values], axis=1)
            cache.keys[layer], cache.values[layer] = keys, values
        else:
            cache.keys.append(keys)
            cache.values.append(values)
        shared = self._heads // self._kv_heads  # query heads per key-value head
        keys, values = np.repeat(keys, shared, axis=0), np.repeat(values, shared, axis=0)
        scores = queries @ keys.swapaxes(1, 2) / np.sqrt(np.float32(queries.shape[-1]))
        seen = np.arange(keys.shape[1]) <= np.arange(position, position + steps)[:, None]
        scores = np.where(seen, scores, np.float32(-np.inf))
        mixed = (softmax(scores) @ values).swapaxes(0, 1).reshape(steps, -1)
        return self._linear(mixed, f"{name}.o_proj")

    def _experts(self, x: Float32, logits: Float32, name: str) -> Float32:
        """Σ over the top-k experts of softmax(their logits) · w2(silu(w1 x) ⊙ w3 x)."""
        chosen = np.argsort(-logits, axis=-1, kind="stable")[:, : self.top_k]
        shares = softmax(np.take_along_axis(logits, chosen, axis=-1))
        out = np.zeros_like(x)
        for expert in np.unique(chosen):
            rows, ranks = np.nonzero(chosen == expert)
            gate = self._linear(x[rows], f"{name}.{expert}.w1")
            up = self._linear(x[rows], f"{name}.{expert}.w3")
            inner = np.asarray(gate / (1.0 + np.exp(-gate)) * up, dtype=np.float32)
            out[rows] += shares[rows, ranks, None] * self._linear(inner, f"{name}.{expert}.w2")
        return out
