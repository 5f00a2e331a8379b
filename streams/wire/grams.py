"""The routers' Gram matrices for a batch of admitted chunks, where a model's are configured."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from routekeel.streams.topology.config import RouterGram, TopologyConfig
from routekeel.streams.topology.session import Session
from routekeel.streams.wire.admit import HEAD_LENGTH, HEAD_START, SLOT_LAYERS

I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def grams_of(
    config: TopologyConfig, batch: Any, group: I64, chosen: I64, experts: int
) -> tuple[npt.NDArray[np.float32] | None, npt.NDArray[np.int32] | None, Bools | None]:
    """Their stack float32[N, E, E], an index per (chunk, layer), −1 for none, and whose are known."""
    stack: list[npt.NDArray[np.float32]] = []
    base: dict[int, int] = {}
    index_of: dict[int, npt.NDArray[np.int32]] = {}
    known_slots = set()
    for slot in group.tolist():
        start = int(batch.table[slot, HEAD_START])
        head = batch.heads[start : start + int(batch.table[slot, HEAD_LENGTH])].tobytes()
        model, revision, layers = Session.names(head)
        known = config.router_gram(model.decode(), revision.decode())
        if known is None or known.gram.shape[1] != experts:
            index_of[slot] = np.full(int(batch.table[slot, SLOT_LAYERS]), -1, np.int32)
            continue
        if id(known) not in base:
            base[id(known)] = sum(len(matrices) for matrices in stack)
            stack.append(known.gram)
        known_slots.add(slot)
        index_of[slot] = _places(known, layers, base[id(known)])
    if not stack:
        return None, None, None
    slots = batch.turns[chosen].tolist()
    index = np.concatenate([index_of[slot] for slot in slots])
    return np.concatenate(stack), index, np.array([slot in known_slots for slot in slots])


def _places(known: RouterGram, layers: tuple[int, ...], start: int) -> npt.NDArray[np.int32]:
    return np.array(
        [start + known.index[layer] if layer in known.index else -1 for layer in layers], np.int32
    )
