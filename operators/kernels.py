"""The compiled kernel: many chunks of many sessions in one call, rows strictly in order.

Theory of operation. For each chunk the sessions' rows of state are brought into padded scratch,
one region per layer. For each token all layers are read first, since the routing component of A*
is their mean; then each layer is controlled. Metrics of a row are folded into sums by layer; at
the chunk's end sums become means and the state goes back into the arena.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from routekeel.operators import kernels_layout as at
from routekeel.operators.kernels_aggregate import (
    close_layer,
    fold_row,
    open_layer,
    write_row,
)
from routekeel.operators.kernels_control import clip, control, guard, keep_norms, schedule
from routekeel.operators.kernels_lanes import compiled, inlined
from routekeel.operators.kernels_rows import base_metrics, base_row, hidden_metrics, move_row
from routekeel.operators.kernels_signature import compile_entry
from routekeel.operators.kernels_topk import count_top_k

ZERO, ONE = np.float32(0), np.float32(1)
NAN = np.float32(np.nan)
# Columns of the chunk table.
TOKENS, LAYERS, TOP_K, DETAIL, ROW_START, TOKEN_START, SLOT_START, DETAIL_START = range(8)


@compiled
def known_ambiguity(cfg: Any, ambiguity: Any, token: Any, routing: Any, parts: Any) -> Any:
    """`ambiguity.combine` of a token: parts = (A*, A_exogenous, components); returns the mask."""
    total, weights = ZERO, ZERO
    mask = 0
    for component in range(3):
        value = ambiguity[token, component]
        if value == value:
            value = clip(value, ZERO, ONE)
            alpha = cfg[at.ALPHA_PREDICTIVE + component]
            if alpha > ZERO:
                total = total + alpha * value
                weights = weights + alpha
                mask |= 1 << component
        parts[2 + component] = value
    parts[5] = routing
    parts[1] = total / weights if weights > ZERO else NAN
    if routing == routing and cfg[at.ALPHA_ROUTING] > ZERO:
        routing = clip(routing, ZERO, ONE)
        total = total + cfg[at.ALPHA_ROUTING] * routing
        weights = weights + cfg[at.ALPHA_ROUTING]
        mask |= 8
    parts[0] = total / weights if weights > ZERO else NAN
    return mask


@inlined
def read_token(
    cfg: Any, buffer: Any, size: Any, logits: Any, apply: Any, row: Any, layers: Any, E: Any, b: Any
) -> Any:
    """Baselines of all layers of a token; returns (rows to apply, R_H averaged over layers)."""
    wanted = 0
    for layer in range(layers):
        if apply[row + layer] != 0:
            wanted += 1
    if wanted == 0:
        return 0, NAN
    good = 0
    total, count = ZERO, ZERO
    for layer in range(layers):
        region = layer * size
        tail = region + at.VECTORS * 8 * b
        x = tail + at.SCALARS
        finite = base_row(cfg, buffer, region, tail, logits, row + layer, E, b)
        buffer[x + at.USE] = ZERO
        if finite:
            total = total + buffer[tail + at.METRICS + at.RELATIVE_ENTROPY]
            count = count + ONE
        if apply[row + layer] != 0:
            if finite:
                good += 1
                buffer[x + at.USE] = ONE
            else:
                buffer[x + at.REJECTED] += ONE
    return good, (total / count if count > ZERO else NAN)


@compiled
def fold_token(
    parts: Any, sums: Any, counts: Any, chunk: Any, c: Any, active: Any, rows: Any
) -> Any:
    """Adds a token's ambiguity to the chunk's sums and counters."""
    for part in range(6):
        if parts[part] == parts[part]:
            sums[part] += parts[part]
            counts[part] += ONE
    a_star = parts[0]
    chunk[c, at.CHUNK_TOKENS] += ONE
    chunk[c, at.CHUNK_APPLIED] += np.float32(rows)
    chunk[c, at.CHUNK_A_LAST] = a_star
    if a_star == a_star:
        chunk[c, at.CHUNK_KNOWN] += ONE
        if active:
            chunk[c, at.CHUNK_HIGH] += ONE
        if not a_star <= chunk[c, at.CHUNK_A_MAX]:
            chunk[c, at.CHUNK_A_MAX] = a_star


@inlined
def control_token(
    cfg: Any, buffer: Any, size: Any, layers: Any, b: Any, a_star: Any
) -> Any:  # fmt: skip
    """Steps 1 to 5 for every usable row of a token.

    Stage by stage over the layers, not layer by layer: a stage is a chain of operations that wait
    for each other, and the CPU can run the chains of several layers at once.
    """
    known = 0
    beta, rate = ONE, ONE
    if a_star == a_star:
        known = 2 if a_star >= cfg[at.ACTIVATION] else 1
        beta, rate = schedule(cfg, a_star)
    offset = at.VECTORS * 8 * b
    for region in range(0, layers * size, size):
        if buffer[region + offset + at.SCALARS + at.USE] != ZERO:
            base_metrics(buffer, region, region + offset, b)
    for region in range(0, layers * size, size):
        if buffer[region + offset + at.SCALARS + at.USE] != ZERO:
            control(cfg, buffer, region, region + offset, b, known, beta, rate)
    for region in range(0, layers * size, size):
        if buffer[region + offset + at.SCALARS + at.USE] != ZERO:
            guard(cfg, buffer, region, region + offset, b, known)
    for region in range(0, layers * size, size):
        x = region + offset + at.SCALARS
        if buffer[x + at.USE] != ZERO and buffer[x + at.NORMS_KNOWN] == ZERO:
            keep_norms(buffer, region, region + offset, b)


@inlined
def apply_token(
    cfg: Any, buffer: Any, size: Any, shared: Any, layers: Any, E: Any, b: Any, k: Any,
    parts: Any, loads: Any, reference: Any, gram: Any, gram_index: Any,
    detail_row: Any, rows: Any, row_w_base: Any, row_w_hat: Any,
) -> Any:  # fmt: skip
    """Every usable row of a token: control, the moving average, metrics, loads, sums."""
    control_token(cfg, buffer, size, layers, b, parts[0])
    half = (loads.shape[0] - 8) // 2
    for layer in range(layers):
        region = layer * size
        tail = region + at.VECTORS * 8 * b
        if buffer[tail + at.SCALARS + at.USE] == ZERO:
            continue
        emitted = move_row(cfg, buffer, region, tail, shared, b)
        place = (reference + layer) * E
        z = region + at.Z * 8 * b
        buffer[tail + at.METRICS + at.MARGIN] = count_top_k(buffer, z, b, E, k, loads, place)
        count_top_k(buffer, emitted, b, E, k, loads, half + place)
        gram_at = np.int64(gram_index[reference + layer]) * E * E
        hidden_metrics(buffer, region, tail, shared, b, E, k, gram, gram_at)
        fold_row(buffer, tail)
        if detail_row >= 0:
            write_row(
                buffer, region, tail, emitted, parts, E, b,
                detail_row + layer, rows, row_w_base, row_w_hat,
            )  # fmt: skip


@compiled
def apply_batch(
    cfg: Any, arena: Any, width: Any, E: Any, table: Any, slots: Any, gram_index: Any,
    logits: Any, apply: Any, ambiguity: Any, gram: Any, layer_out: Any, loads: Any,
    route: Any, chunk: Any, mask: Any, rows: Any, row_w_base: Any, row_w_hat: Any,
    buffer: Any, layers_max: Any, state: Any,
) -> Any:  # fmt: skip
    """Applies every chunk of the table; arena and outputs are written in place."""
    b = (E + 7) // 8
    size = at.VECTORS * 8 * b + at.TAIL_SIZE
    shared = layers_max * size
    ledger = shared + at.SHARED * 8 * b
    parts = buffer[ledger + at.LEDGER_PARTS : ledger + at.LEDGER_PARTS + 6]
    sums = buffer[ledger + at.LEDGER_SUMS : ledger + at.LEDGER_SUMS + 6]
    counts = buffer[ledger + at.LEDGER_COUNTS : ledger + at.LEDGER_COUNTS + 6]
    for c in range(table.shape[0]):
        layers, reference = table[c, LAYERS], table[c, SLOT_START]
        k = min(table[c, TOP_K], E)
        for part in range(6):
            sums[part] = ZERO
            counts[part] = ZERO
        for column in range(at.CHUNK_TOKENS, at.CHUNK_REJECTED + 1):
            chunk[c, column] = ZERO
        chunk[c, at.CHUNK_A_MAX] = NAN
        chunk[c, at.CHUNK_A_LAST] = NAN
        mask[c] = 0
        for layer in range(layers):
            open_layer(buffer, layer * size, arena, slots[reference + layer] * width, E, b)
        for token in range(table[c, TOKENS]):
            row = table[c, ROW_START] + token * layers
            good, routing = read_token(cfg, buffer, size, logits, apply, row, layers, E, b)
            if good == 0:
                continue
            place = table[c, TOKEN_START] + token
            mask[c] |= known_ambiguity(cfg, ambiguity, place, routing, parts)
            fold_token(parts, sums, counts, chunk, c, parts[0] >= cfg[at.ACTIVATION], good)
            detail_row = np.int64(-1)
            if table[c, DETAIL] != 0:
                detail_row = table[c, DETAIL_START] + token * layers
            apply_token(
                cfg, buffer, size, shared, layers, E, b, k, parts, loads, reference, gram,
                gram_index, detail_row, rows, row_w_base, row_w_hat,
            )  # fmt: skip
        for part in range(6):
            chunk[c, part] = sums[part] / counts[part] if counts[part] > ZERO else NAN
        for layer in range(layers):
            slot = slots[reference + layer] * width
            chunk[c, at.CHUNK_REJECTED] += close_layer(
                buffer, layer * size, shared, arena, slot, E, b, loads, reference + layer,
                layer_out, route,
            )  # fmt: skip
            for index in range(width):
                state[reference + layer, index] = arena[slot + index]


def _run(source_digest: int) -> Any:
    # The digest is a closure variable only because numba's cache key includes those.
    def run(
        cfg: Any, arena: Any, width: Any, E: Any, table: Any, slots: Any, gram_index: Any,
        logits: Any, apply: Any, ambiguity: Any, gram: Any, layer_out: Any, loads: Any,
        route: Any, chunk: Any, mask: Any, rows: Any, row_w_base: Any, row_w_hat: Any,
        buffer: Any, layers_max: Any, state: Any,
    ) -> Any:  # fmt: skip
        if source_digest != 0:
            apply_batch(
                cfg, arena, width, E, table, slots, gram_index, logits, apply, ambiguity, gram,
                layer_out, loads, route, chunk, mask, rows, row_w_base, row_w_hat, buffer,
                layers_max, state,
            )  # fmt: skip

    return run


run = compile_entry(_run)
