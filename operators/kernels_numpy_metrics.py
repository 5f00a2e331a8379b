"""Step 7 in NumPy: the metrics of every row of a chunk at once, and their aggregates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from routekeel.operators.ambiguity import Ambiguity
from routekeel.operators.arithmetic import F32, ONE, ZERO, f32, lane_sum, norm32
from routekeel.operators.columns import (
    CHUNK,
    FLAG_COLUMNS,
    LAST_COLUMNS,
    LAYER,
    N_CHUNK_COLS,
    N_LAYER_COLS,
    N_MEAN_COLS,
    N_ROW_COLS,
    ROW,
)
from routekeel.operators.config import RouterConfig
from routekeel.operators.contract import BatchOutput
from routekeel.operators.ema import distance, self_similarity
from routekeel.operators.entropy import participation, vertex_distance
from routekeel.operators.flips import flip_distance, margin, ranked
from routekeel.operators.gates import softmax
from routekeel.operators.hidden import covariance_norm, expert_distance
from routekeel.operators.hysteresis import emitted_route, flipped
from routekeel.operators.load import imbalance, top_k_counts
from routekeel.operators.sensitivity import covariance_norms, gain, secant
from routekeel.operators.state import SEEN, WINNER

if TYPE_CHECKING:
    from routekeel.operators.kernels_numpy import Baseline, Trace

Index = npt.NDArray[np.int32]


def fill_rows(
    trace: Trace, base: Baseline, a: Ambiguity, k: int, gram: F32, gram_index: Index
) -> F32:
    """f32[T, L, N_ROW_COLS]: ROW_COLUMNS of every usable row, NaN and applied = 0 elsewhere."""
    tokens, layers, E = base.z.shape
    metrics = np.full((tokens, layers, N_ROW_COLS), np.nan, dtype=f32)
    use = base.use
    z, w_base, w = base.z[use], base.w[use], trace.w[use]
    before = trace.before[use]
    w_hat, emitted = trace.w_hat[use], trace.emitted[use]
    w_hat_prev, z_prev = before[:, :E], before[:, E : 2 * E]
    seen = before[:, 2 * E + SEEN] != ZERO
    values = {name: each[use] for name, each in trace.values.items()}
    w_base_prev, _, _ = softmax(z_prev)
    old = np.where(seen, before[:, 2 * E + WINNER], f32(-1)).astype(np.int64)
    old_base = np.where(seen, z_prev.argmax(axis=-1), -1)
    effective = np.where(seen, values["lambda"], ONE).astype(f32)
    two_base, frobenius_base, square_base = covariance_norms(w_base)
    two, frobenius, _ = covariance_norms(w)
    with np.errstate(over="ignore"):
        logit_step = np.where(seen, norm32(z - z_prev), f32(np.nan)).astype(f32)
    step = distance(w_hat, w_hat_prev)
    token = np.nonzero(use)[0]
    columns = {
        **values,
        "lambda_effective": effective,
        "route_entropy": base.entropy[use],
        "relative_entropy": base.relative[use],
        "participation_base": participation(square_base),
        "participation": participation(lane_sum(w_hat * w_hat)),
        "vertex_distance_base": vertex_distance(w_base),
        "vertex_distance": vertex_distance(w_hat),
        "grad_norm_base": frobenius_base,
        "grad_norm": gain(frobenius, values["beta"], effective),
        "g_base": two_base,
        "g_controlled": gain(two, values["beta"], effective),
        "g_secant_base": secant(distance(w_base, w_base_prev), logit_step),
        "g_secant_controlled": secant(step, logit_step),
        "margin": margin(z, ranked(z), k),
        "self_similarity_base": _where(seen, self_similarity(w_base, w_base_prev)),
        "self_similarity": _where(seen, self_similarity(w_hat, w_hat_prev)),
        "delta_w_hat": _where(seen, step),
        "route_shift": distance(emitted, w_base),
        "winner_flip_base": flipped(z.argmax(axis=-1), old_base),
        "winner_flip_controlled": flipped(values["winner"].astype(np.int64), old),
        "a_star": a.a_star[token],
        "a_exogenous": a.a_exogenous[token],
        "applied": np.ones(token.size, dtype=f32),
    }
    del columns["winner"]
    filled = np.full((token.size, N_ROW_COLS), np.nan, dtype=f32)
    for name, each in columns.items():
        filled[:, ROW[name]] = each
    metrics[use] = filled
    metrics[..., ROW["applied"]] = use
    _fill_hidden(metrics, trace, base, k, gram, gram_index)
    return metrics


def _where(defined: npt.NDArray[np.bool_], values: F32) -> F32:
    return np.where(defined, values, f32(np.nan)).astype(f32)


def _fill_hidden(
    metrics: F32, trace: Trace, base: Baseline, k: int, gram: F32, gram_index: Index
) -> None:
    """Metrics that need the router matrix, for the layers where W Wᵀ is known."""
    E = base.z.shape[-1]
    for layer in np.flatnonzero(gram_index >= 0):
        K = gram[gram_index[layer]]
        for t in np.flatnonzero(base.use[:, layer]):
            row = metrics[t, layer]
            if k < E:
                order = ranked(base.z[t, layer])
                apart = expert_distance(K, int(order[k - 1]), int(order[k]))
                row[ROW["flip_distance"]] = flip_distance(row[ROW["margin"]], apart)
            row[ROW["g_hidden_base"]] = covariance_norm(base.w[t, layer], K)
            scale = row[ROW["lambda_effective"]] * row[ROW["beta"]]
            row[ROW["g_hidden_controlled"]] = scale * covariance_norm(trace.w[t, layer], K)


def layer_columns(
    output: BatchOutput,
    refs: slice,
    metrics: F32,
    trace: Trace,
    base: Baseline,
    k: int,
    states: F32,
) -> None:
    """Aggregates of each layer over the chunk's usable tokens, loads, and the emitted route."""
    tokens, layers, E = base.z.shape
    layer = np.full((layers, N_LAYER_COLS), np.nan, dtype=f32)
    sums = np.zeros((layers, N_MEAN_COLS), dtype=f32)
    means = metrics[..., :N_MEAN_COLS]
    defined = ~np.isnan(means)
    for t in range(tokens):
        sums = np.where(defined[t], sums + means[t], sums)
    counts = defined.sum(axis=0).astype(f32)
    some = counts > ZERO
    layer[:, :N_MEAN_COLS][some] = sums[some] / counts[some]
    flags = metrics[..., ROW[FLAG_COLUMNS[0]] : ROW[FLAG_COLUMNS[-1]] + 1]
    first = LAYER["winner_flips_base"]
    layer[:, first : first + 4] = (flags == ONE).sum(axis=0)
    last = LAYER[LAST_COLUMNS[0]]
    layer[:, last + 1 : last + 5] = states[:, 2 * E : 2 * E + 4]
    for place in range(layers):
        applied = np.flatnonzero(base.use[:, place])
        if applied.size:
            after = metrics[applied[-1], place]
            layer[place, last] = after[ROW["pi_error"]]
            layer[place, LAYER["beta_last"]] = after[ROW["beta"]]
            layer[place, LAYER["lambda_last"]] = after[ROW["lambda"]]
    with np.errstate(invalid="ignore"):
        for name, extreme in (("g_base", "max"), ("g_controlled", "max")):
            layer[:, LAYER[f"{name}_{extreme}"]] = _extreme(metrics[..., ROW[name]], np.fmax)
        for name in ("margin", "flip_distance"):
            layer[:, LAYER[f"{name}_min"]] = _extreme(metrics[..., ROW[name]], np.fmin)
    for place in range(layers):
        used = base.use[:, place]
        at = refs.start + place
        output.load_base[at] = top_k_counts(ranked(base.z[used, place]), k)
        output.load_controlled[at] = top_k_counts(ranked(trace.emitted[used, place]), k)
    for kind, loads in (("base", output.load_base), ("controlled", output.load_controlled)):
        over_mean, variation = imbalance(loads[refs])
        layer[:, LAYER[f"load_max_over_mean_{kind}"]] = over_mean
        layer[:, LAYER[f"load_cv_{kind}"]] = variation
    layer[:, LAYER["tokens"]] = base.use.sum(axis=0)
    layer[:, LAYER["rejected"]] = base.rejected.sum(axis=0)
    output.layer[refs] = layer
    seen = states[:, 2 * E + SEEN] != ZERO
    if seen.any():
        winner = states[seen, 2 * E + WINNER].astype(np.int64)
        output.route[refs][seen] = emitted_route(states[seen, :E], winner)


def _extreme(values: F32, join: np.ufunc) -> F32:
    """Over tokens, NaN counting as nothing; NaN where all are, or there is none."""
    return np.asarray(join.reduce(values, axis=0, initial=np.nan), dtype=f32)


def chunk_columns(config: RouterConfig, base: Baseline, a: Ambiguity) -> F32:
    """CHUNK_COLUMNS: means and extremes of A* and its components over tokens with a usable row."""
    columns = np.full(N_CHUNK_COLS, np.nan, dtype=f32)
    used = base.use.any(axis=1)
    parts = np.column_stack([a.a_star, a.a_exogenous, a.components])[used]
    for place in range(parts.shape[1]):
        known = parts[:, place][~np.isnan(parts[:, place])]
        if known.size:
            total = np.add.accumulate(known, dtype=f32)[-1]
            columns[place] = total / f32(known.size)
    a_star = a.a_star[used]
    known = a_star[~np.isnan(a_star)]
    if known.size:
        columns[CHUNK["a_star_max"]] = known.max()
    if a_star.size:
        columns[CHUNK["a_star_last"]] = a_star[-1]
    columns[CHUNK["tokens"]] = used.sum()
    columns[CHUNK["tokens_known"]] = known.size
    columns[CHUNK["tokens_high"]] = (known >= f32(config.activation)).sum()
    columns[CHUNK["rows_applied"]] = base.use.sum()
    columns[CHUNK["rows_rejected"]] = base.rejected.sum()
    return columns
