"""The part of a record that only depends on the chunk's shape, encoded once per shape."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from routekeel.schemas.limits import LAYERS_MAX, ROUTES_MAX
from routekeel.streams.sdk.encode import layout
from routekeel.streams.sdk.optional import INT_MAX, check_integer, check_text
from routekeel.streams.sdk.refusal import INVALID_FIELD, INVALID_SHAPE, Refused

SHAPES_MAX = 1024


class Ranks(NamedTuple):
    """Where the worker stands in a distributed engine; zeros for a single one."""

    data: int = 0
    tensor: int = 0
    pipeline: int = 0
    expert: int = 0


class Layouts:
    """Encoded layouts by shape, layers, top_k and router kind; at most SHAPES_MAX are kept."""

    def __init__(self, encoding: str, top_m: int, ranks: Ranks) -> None:
        for name, rank in zip(Ranks._fields, ranks, strict=True):
            check_integer(f"rank {name}", rank, 0, INT_MAX)
        self._encoding = encoding
        self._top_m = top_m if encoding == "TOPM_F16" else 0
        self._ranks = ranks
        # The layers are kept beside their id: hashing 48 numbers costs more than a comparison of
        # identities, and an object that is kept cannot lend its id to another.
        self._known: dict[tuple[object, ...], tuple[object, bytes]] = {}
        self._tuples: dict[tuple[int, ...], tuple[int, ...]] = {}

    def get(
        self,
        shape: tuple[int, ...],
        layers: Sequence[int] | None,
        top_k: int | None,
        router_kind: str,
        logits_bytes: int,
    ) -> bytes:
        """The encoded fields from `steps` to the length of `logits`. Raises Refused."""
        if layers is not None and type(layers) is not tuple:
            layers = self._interned(layers)
        key = (shape, id(layers), top_k, router_kind)
        try:
            known = self._known.get(key)
        except TypeError:  # what cannot be hashed is no number and no text
            raise Refused(
                INVALID_FIELD, f"top_k {top_k!r} or router_kind {router_kind!r}"
            ) from None
        if known is not None and known[0] is layers:
            return known[1]
        segment = self._encode(shape, layers, top_k, router_kind, logits_bytes)
        if len(self._known) >= SHAPES_MAX:
            self._known.clear()
        self._known[key] = (layers, segment)
        return segment

    def _interned(self, layers: Sequence[int]) -> tuple[int, ...]:
        try:
            as_tuple = tuple(layers)
            if len(self._tuples) >= SHAPES_MAX:
                self._tuples.clear()
            return self._tuples.setdefault(as_tuple, as_tuple)
        except TypeError:
            raise Refused(
                INVALID_SHAPE, f"layers is {layers!r}, it must be a list of ids"
            ) from None

    def _encode(
        self,
        shape: tuple[int, ...],
        layers: Sequence[int] | None,
        top_k: int | None,
        router_kind: str,
        logits_bytes: int,
    ) -> bytes:
        experts = shape[2]
        if layers is None:
            layers = range(shape[1])
        if len(layers) != shape[1] or len(layers) > LAYERS_MAX:
            raise Refused(INVALID_SHAPE, f"{len(layers)} layer ids for logits of the shape {shape}")
        for layer in layers:
            check_integer("a layer id", layer, 0, LAYERS_MAX - 1)
        if any(a >= b for a, b in pairwise(layers)):
            raise Refused(INVALID_SHAPE, "layer ids must ascend without repeats")
        if (layers[-1] + 1) * experts > ROUTES_MAX:
            raise Refused(
                INVALID_SHAPE,
                f"logits of layer {layers[-1]} with {experts} experts: (highest layer id + 1) · experts is at "
                f"most {ROUTES_MAX}",
            )
        if top_k is None:
            raise Refused(INVALID_FIELD, "top_k is missing: give it here or to the Producer")
        check_integer("top_k", top_k, 1, experts)
        check_text("router_kind", router_kind)
        top_m = min(self._top_m, experts)
        return layout(
            shape,
            [int(layer) for layer in layers],
            self._ranks,
            int(top_k),
            router_kind,
            self._encoding,
            top_m,
            logits_bytes,
        )
