"""The pure step: (config, state, batch) -> (state, output), for many sessions or for one.

Both forms run the same kernel. Nothing is mutated unless `out` names where the new arena goes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from routekeel.operators.arithmetic import log32
from routekeel.operators.columns import N_CHUNK_COLS, N_LAYER_COLS, N_ROW_COLS
from routekeel.operators.config import RouterConfig
from routekeel.operators.contract import BatchError, BatchOutput, Chunk, ChunkBatch
from routekeel.operators.state import RouterState, state_width

F32 = npt.NDArray[np.float32]
Kernel = Literal["auto", "numba", "numpy"]
NO_GRAM = np.zeros((0, 0, 0), dtype=np.float32)


@lru_cache(maxsize=1)
def compiled_kernel_exists() -> bool:
    """Whether numba is here and compiles the kernel; without it 'auto' means the NumPy one."""
    try:
        import routekeel.operators.kernels  # noqa: F401
    # Whatever numba or LLVM raise on a platform they do not know, the NumPy kernel still works.
    except Exception:
        return False
    return True


def step_many(
    config: RouterConfig,
    arena: F32,
    batch: ChunkBatch,
    router_gram: F32 | None = None,
    kernel: Kernel = "auto",
    out: F32 | None = None,
) -> tuple[F32, BatchOutput]:
    """Applies a batch to an arena f32[slots, state_width(E)]; returns the new arena and telemetry.

    Units and ranges of what comes out are in `catalog`.
    router_gram: f32[N, E, E] of W·Wᵀ, indexed by `batch.gram_index`; None = all unknown.
    kernel: 'numba', 'numpy', or 'auto' (numba where it can be imported).
    out: where the new arena goes; None = a fresh copy. `out=arena` applies in place, which is what
        a caller does that owns a large arena; the arena given is otherwise never changed.
    An empty batch changes nothing. Raises BatchError on arrays that do not fit together.
    """
    gram = _checked(arena, batch, NO_GRAM if router_gram is None else router_gram)
    if out is None:
        out = arena.copy()
    elif out is not arena:
        if out.shape != arena.shape or out.dtype != np.float32 or not out.flags.c_contiguous:
            raise BatchError("out must be a C-contiguous float32 array of the arena's shape")
        np.copyto(out, arena)
    output = _empty_output(batch)
    if kernel == "numpy" or (kernel == "auto" and not compiled_kernel_exists()):
        from routekeel.operators.kernels_numpy import run_batch

        run_batch(config, out, batch, gram, output)
    else:
        _run_compiled(config, out, batch, gram, output)
    return out, output


def step(
    config: RouterConfig,
    state: RouterState,
    chunk: Chunk,
    router_gram: F32 | None = None,
    kernel: Kernel = "auto",
) -> tuple[RouterState, BatchOutput]:
    """One chunk of one session, with per-row output of every token (`output.rows` etc.).

    `chunk.logits` are f32[T, L, E], finite. Rows of `output.rows` are token-major: row t·L + l, in the
    units of `catalog`. The state given is not changed.

    >>> from routekeel.operators.config import DEFAULT
    >>> logits = np.array([[[0.0, 1.0]], [[1.0, 0.0]]], np.float32)
    >>> state, output = step(DEFAULT, RouterState.initial(1, 2), Chunk(logits), kernel="numpy")
    >>> output.row_column("winner_flip_controlled").tolist()
    [nan, 1.0]
    """
    logits = np.asarray(chunk.logits, dtype=np.float32)
    if logits.ndim != 3 or logits.shape[1:] != (state.layers, state.experts):
        raise BatchError(f"logits must be [T, {state.layers}, {state.experts}], got {logits.shape}")
    tokens, layers, experts = logits.shape
    batch = ChunkBatch.build(
        logits.reshape(tokens * layers, experts),
        [tokens],
        [layers],
        np.arange(layers),
        top_k=chunk.top_k,
        apply=chunk.apply,
        ambiguity=chunk.ambiguity,
        detail=1,
        gram_index=chunk.gram_index,
    )
    arena, output = step_many(config, state.packed, batch, router_gram, kernel)
    return RouterState(arena), output


def _checked(arena: F32, batch: ChunkBatch, gram: F32) -> F32:
    E = batch.experts
    if arena.ndim != 2 or arena.shape[1] != state_width(E):
        raise BatchError(f"arena must be [slots, {state_width(E)}] for E={E}, got {arena.shape}")
    if arena.dtype != np.float32 or not arena.flags.c_contiguous:
        raise BatchError("arena must be C-contiguous float32")
    slots = batch.slots
    if slots.size and (int(slots.min()) < 0 or int(slots.max()) >= arena.shape[0]):
        raise BatchError(f"slots must be in [0, {arena.shape[0]})")
    if gram.size and gram.shape[1:] != (E, E):
        raise BatchError(f"router_gram must be [N, {E}, {E}], got {gram.shape}")
    if batch.gram_index.size and int(batch.gram_index.max()) >= gram.shape[0]:
        raise BatchError(f"gram_index must be below {gram.shape[0]}")
    return np.ascontiguousarray(gram, dtype=np.float32)


def _empty_output(batch: ChunkBatch) -> BatchOutput:
    refs, E = int(batch.slot_start[-1]), batch.experts
    detail = int(batch.detail_start[-1])
    # The compiled kernel counts eight experts at once; the last eight are never anyone's.
    loads = np.zeros(2 * refs * E + 8, dtype=np.int32)
    base, controlled = loads[:-8].reshape(2, refs, E)
    rows = np.full((detail, N_ROW_COLS), np.nan, dtype=np.float32)
    rows[:, -1] = 0
    return BatchOutput(
        layer=np.empty((refs, N_LAYER_COLS), dtype=np.float32),
        loads=loads,
        load_base=base,
        load_controlled=controlled,
        route=np.full((refs, E), np.nan, dtype=np.float32),
        state=np.empty((refs, state_width(E)), dtype=np.float32),
        chunk=np.empty((batch.chunks, N_CHUNK_COLS), dtype=np.float32),
        ambiguity_mask=np.zeros(batch.chunks, dtype=np.uint8),
        rows=rows,
        row_w_base=np.full((detail, E), np.nan, dtype=np.float32),
        row_w_hat=np.full((detail, E), np.nan, dtype=np.float32),
    )


def _run_compiled(
    config: RouterConfig,
    arena: F32,
    batch: ChunkBatch,
    gram: F32,
    output: BatchOutput,
) -> None:
    from routekeel.operators import kernels, kernels_layout

    E = batch.experts
    layers_max = int(batch.chunk_layers.max()) if batch.chunks else 0
    vectors = 8 * -(-E // 8)
    region = kernels_layout.VECTORS * vectors + kernels_layout.TAIL_SIZE
    shared = kernels_layout.SHARED * vectors + kernels_layout.LEDGER_SIZE
    scratch = np.empty(layers_max * region + shared, dtype=np.float32)
    table = np.empty((batch.chunks, 8), dtype=np.int64)
    columns: tuple[npt.NDArray[np.integer], ...] = (
        batch.chunk_tokens,
        batch.chunk_layers,
        batch.top_k,
        batch.detail,
        batch.row_start[:-1],
        batch.token_start[:-1],
        batch.slot_start[:-1],
        batch.detail_start[:-1],
    )
    for column, values in enumerate(columns):
        table[:, column] = values
    cfg = np.append(config.packed, log32(np.float32(E)))
    kernels.run(
        cfg.astype(np.float32), arena.reshape(-1), arena.shape[1], E, table, batch.slots,
        batch.gram_index, batch.logits.reshape(-1), batch.apply, batch.ambiguity,
        gram.reshape(-1), output.layer, output.loads, output.route, output.chunk,
        output.ambiguity_mask, output.rows, output.row_w_base, output.row_w_hat,
        scratch, layers_max, output.state,
    )  # fmt: skip
