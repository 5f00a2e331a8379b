"""Wraps the router gates of an mlx-lm model, so that each forward pass reports its router logits.

MLX arrays are lazy: a gate's call only adds to a graph. The wrapper keeps the graph's node and
hands the same node on, so the model's own output is computed exactly as without the tap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from routekeel.backends.base import BackendError

# Where mlx-lm's models keep the router: Mixtral, Qwen-MoE, gpt-oss. The routers found elsewhere
# (deepseek_v3's MoEGate returns indices and scores) never show their logits to a wrapper.
GATE_PATHS = (("block_sparse_moe", "gate"), ("mlp", "gate"), ("mlp", "router"))


class UntappableModelError(BackendError):
    """No layer has a router of a known shape."""


class GateWrap(nn.Module):
    """Stands in for a gate: same input, same output, and the output is noted in `sink`."""

    def __init__(self, gate: nn.Module, layer: int, sink: dict[int, mx.array]) -> None:
        """Wrap `gate` of `layer`; `sink` is shared by all layers of a tap."""
        super().__init__()
        self.gate = gate
        # A plain attribute of an nn.Module would become a parameter tree; these must not.
        object.__setattr__(self, "_layer", layer)
        object.__setattr__(self, "_sink", sink)

    def __call__(self, x: mx.array) -> mx.array:
        """Router logits of x, untouched."""
        logits: mx.array = self.gate(x)
        self._sink[self._layer] = logits
        return logits


@dataclass(frozen=True)
class TappedPass:
    """One forward pass, still lazy: token_ids [T], logits [T, L, E], token_entropy [T] (nats)."""

    token_ids: mx.array
    logits: mx.array
    token_entropy: mx.array


class RouterTap:
    """Every gate of a model, wrapped. `remove` puts the original gates back."""

    def __init__(self, model: Any) -> None:
        """Install. Raises UntappableModelError when no layer has a known gate."""
        self._model = model
        self._sink: dict[int, mx.array] = {}
        self._places: dict[int, tuple[Any, str, nn.Module]] = {}
        for layer, block in enumerate(model.layers):
            for parent_name, gate_name in GATE_PATHS:
                parent = getattr(block, parent_name, None)
                gate = getattr(parent, gate_name, None)
                if isinstance(gate, (nn.Linear, nn.QuantizedLinear)):
                    self._places[layer] = (parent, gate_name, gate)
                    setattr(parent, gate_name, GateWrap(gate, layer, self._sink))
                    break
        if not self._places:
            raise UntappableModelError(
                "no router found: looked for " + ", ".join(".".join(path) for path in GATE_PATHS)
            )

    @property
    def layers(self) -> tuple[int, ...]:
        """Ids of the layers that have a router, ascending."""
        return tuple(self._places)

    def forward(self, token_ids: mx.array, cache: Any, passes: list[TappedPass]) -> mx.array:
        """Call the model on [1, T] tokens; the pass joins `passes`. Returns logits [1, T, V]."""
        self._sink.clear()
        logits: mx.array = self._model(token_ids, cache=cache)
        routes = [self._sink[layer].reshape(token_ids.size, -1) for layer in self._places]
        passes.append(
            TappedPass(
                token_ids.reshape(-1),
                mx.stack(routes, axis=1).astype(mx.float32),
                entropy_nats(logits[0]),
            )
        )
        return logits

    def router_matrices(self, hidden: int) -> list[mx.array]:
        """W of each layer, float32 [E, H].

        Taken as the gate's answer to unit vectors less its answer to zero, which also holds for
        quantised gates and gates with a bias.
        """
        units, zero = mx.eye(hidden), mx.zeros((1, hidden))
        return [
            (gate(units) - gate(zero)).astype(mx.float32).T for _, _, gate in self._places.values()
        ]

    def remove(self) -> None:
        """Restore the original gates; a second call does nothing."""
        for parent, gate_name, gate in self._places.values():
            setattr(parent, gate_name, gate)
        self._places.clear()


def entropy_nats(logits: mx.array) -> mx.array:
    """Entropy of softmax(logits) over the last axis, in nats, float32."""
    log_p = logits.astype(mx.float32)
    log_p = log_p - mx.logsumexp(log_p, axis=-1, keepdims=True)
    return mx.maximum(-mx.sum(mx.exp(log_p) * log_p, axis=-1), 0.0)
