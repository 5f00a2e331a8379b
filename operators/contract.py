"""What goes into a step and what comes out: flat arrays of many chunks of many sessions.

Offsets are derived once, in `ChunkBatch.build`, and every length is checked there, so that the
kernels may index without looking.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from routekeel.operators.columns import LAYER, ROW
from routekeel.operators.state import E_MAX

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
Scalar = TypeVar("Scalar", np.int32, np.uint8)


class BatchError(ValueError):
    """A batch whose arrays do not fit together."""


@dataclass(frozen=True, eq=False)
class ChunkBatch:
    """C chunks, applied strictly in order; chunk c has T_c tokens at L_c layers. Made by `build`.

    logits: f32[rows, E], rows ordered chunk → token → layer, rows = Σ T_c·L_c. A row with NaN or
        infinity is rejected: counted, its slot's state untouched.
    chunk_tokens, chunk_layers, top_k: i32[C].
    slots: i32[Σ L_c], the arena row of each (chunk, layer), different within a chunk.
    apply: u8[rows]; 0 = already applied earlier: state untouched, left out of every aggregate.
    ambiguity: f32[Σ T_c, 3]: predictive, paraphrase, specification in [0, 1], NaN = absent.
    detail: u8[C]; 1 = the chunk's rows are also given one by one.
    gram_index: i32[Σ L_c] into `router_gram`, −1 = router matrix unknown.
    row_start, token_start, slot_start: i64[C + 1] offsets; detail_start: i64[C + 1] of the rows
        that `BatchOutput.rows` holds.
    """

    logits: F32
    chunk_tokens: I32
    chunk_layers: I32
    slots: I32
    apply: U8
    ambiguity: F32
    top_k: I32
    detail: U8
    gram_index: I32
    row_start: I64
    token_start: I64
    slot_start: I64
    detail_start: I64

    @classmethod
    def build(
        cls,
        logits: npt.ArrayLike,
        chunk_tokens: npt.ArrayLike,
        chunk_layers: npt.ArrayLike,
        slots: npt.ArrayLike,
        *,
        top_k: npt.ArrayLike = 2,
        apply: npt.ArrayLike | None = None,
        ambiguity: npt.ArrayLike | None = None,
        detail: npt.ArrayLike = 0,
        gram_index: npt.ArrayLike | None = None,
    ) -> ChunkBatch:
        """Checks lengths, fills defaults (all applied, A* unknown, no detail) and derives offsets.

        Scalars for `top_k` and `detail` hold for every chunk. Arrays that already have the right
        dtype and are C-contiguous are not copied. Raises BatchError.

        >>> batch = ChunkBatch.build(np.zeros((6, 4)), [3], [2], [0, 1])
        >>> batch.rows, batch.chunks, batch.experts
        (6, 1, 4)
        """
        z = np.ascontiguousarray(logits, dtype=np.float32)
        if z.ndim != 2 or not 1 <= z.shape[1] <= E_MAX:
            raise BatchError(f"logits must be [rows, E] with E in [1, {E_MAX}], got {z.shape}")
        if not z.flags.aligned:
            z = z.copy()
        tokens = np.ascontiguousarray(chunk_tokens, dtype=np.int32)
        layers = np.ascontiguousarray(chunk_layers, dtype=np.int32)
        if tokens.ndim != 1 or tokens.shape != layers.shape:
            raise BatchError(f"chunk_tokens {tokens.shape} and chunk_layers {layers.shape} differ")
        if tokens.size and (int(tokens.min()) < 0 or int(layers.min()) < 0):
            raise BatchError("chunk_tokens and chunk_layers must be >= 0")
        count = tokens.size
        row_start = _offsets(tokens.astype(np.int64) * layers)
        token_start = _offsets(tokens)
        slot_start = _offsets(layers)
        refs = int(slot_start[-1])
        detail_per_chunk = _per_chunk("detail", detail, count, np.uint8)
        batch = cls(
            logits=z,
            chunk_tokens=tokens,
            chunk_layers=layers,
            slots=np.ascontiguousarray(slots, dtype=np.int32),
            apply=_or_full(apply, z.shape[0], 1, np.uint8),
            ambiguity=_ambiguity(ambiguity, int(token_start[-1])),
            top_k=_per_chunk("top_k", top_k, count, np.int32),
            detail=detail_per_chunk,
            gram_index=_or_full(gram_index, refs, -1, np.int32),
            row_start=row_start,
            token_start=token_start,
            slot_start=slot_start,
            detail_start=_offsets(np.where(detail_per_chunk != 0, np.diff(row_start), 0)),
        )
        for name, have, want in (
            ("logits", z.shape[0], int(row_start[-1])),
            ("slots", batch.slots.size, refs),
            ("apply", batch.apply.size, z.shape[0]),
            ("gram_index", batch.gram_index.size, refs),
        ):
            if have != want:
                raise BatchError(f"{name} has {have} rows, the chunks need {want}")
        if count and int(batch.top_k.min()) < 1:
            raise BatchError("top_k must be >= 1")
        return batch

    @property
    def rows(self) -> int:
        return int(self.logits.shape[0])

    @property
    def chunks(self) -> int:
        return int(self.chunk_tokens.shape[0])

    @property
    def experts(self) -> int:
        return int(self.logits.shape[1])


def _offsets(counts: npt.NDArray[np.integer]) -> I64:
    starts = np.zeros(counts.size + 1, dtype=np.int64)
    np.cumsum(counts, out=starts[1:])
    return starts


def _per_chunk(
    name: str, values: npt.ArrayLike, count: int, dtype: type[Scalar]
) -> npt.NDArray[Scalar]:
    array = np.asarray(values, dtype=dtype)
    if array.ndim == 0:
        array = np.full(count, array, dtype=dtype)
    if array.shape != (count,):
        raise BatchError(f"{name} has shape {array.shape}, the batch has {count} chunks")
    return np.ascontiguousarray(array)


def _or_full(
    values: npt.ArrayLike | None, size: int, fill: int, dtype: type[Scalar]
) -> npt.NDArray[Scalar]:
    if values is None:
        return np.full(size, fill, dtype=dtype)
    return np.ascontiguousarray(values, dtype=dtype).reshape(-1)


def _ambiguity(values: npt.ArrayLike | None, tokens: int) -> F32:
    if values is None:
        return np.full((tokens, 3), np.nan, dtype=np.float32)
    array = np.ascontiguousarray(values, dtype=np.float32)
    if array.shape != (tokens, 3):
        raise BatchError(f"ambiguity must be [{tokens}, 3], got {array.shape}")
    return array


@dataclass(frozen=True, eq=False)
class BatchOutput:
    """Telemetry of one call; NaN = not defined.

    layer: f32[Σ L_c, N_LAYER_COLS] by (chunk, layer), columns LAYER_COLUMNS.
    load_base, load_controlled: i32[Σ L_c, E], how often each expert was among the top k of z and
        of the controlled route; `loads` is both, flat, one after the other.
    route: f32[Σ L_c, E], the controlled route after the chunk's last applied row, sums to 1
        (NaN where the slot has never seen a row); softmax(ln route) = route.
    state: f32[Σ L_c, state_width(E)], each slot's packed row right after the chunk (a snapshot).
    chunk: f32[C, N_CHUNK_COLS]; ambiguity_mask: u8[C], OR of AMBIGUITY_BITS over its tokens.
    rows, row_w_base, row_w_hat: f32[detail rows, N_ROW_COLS], [.., E], [.., E] for chunks with
        detail = 1, rows in input order, `batch.detail_start` has the offsets; a row that was not
        applied is NaN with applied = 0.
    """

    layer: F32
    loads: I32
    load_base: I32
    load_controlled: I32
    route: F32
    state: F32
    chunk: F32
    ambiguity_mask: U8
    rows: F32
    row_w_base: F32
    row_w_hat: F32

    def layer_column(self, name: str) -> F32:
        """One column of `layer` by its name."""
        return self.layer[:, LAYER[name]]

    def row_column(self, name: str) -> F32:
        """One column of `rows` by its name."""
        return self.rows[:, ROW[name]]


@dataclass(frozen=True, eq=False)
class Chunk:
    """One session's chunk for `step`: logits f32[T, L, E], one state row per layer.

    ambiguity: f32[T, 3] or None; apply: u8[T, L] or None (all); top_k ≥ 1;
    gram_index: i32[L] or None (unknown).
    """

    logits: F32
    ambiguity: F32 | None = None
    apply: U8 | None = None
    top_k: int = 2
    gram_index: Sequence[int] | None = None
