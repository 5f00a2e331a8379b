"""The plain NumPy kernel: the documented formulas, composed in the order of the control law.

What does not depend on earlier tokens (the baseline) and what nothing later depends on (metrics)
is done for all rows of a chunk at once; only the control of a token waits for the one before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from routekeel.operators.ambiguity import Ambiguity, combine
from routekeel.operators.arithmetic import F32, ONE, ZERO, f32
from routekeel.operators.config import RouterConfig
from routekeel.operators.contract import BatchOutput, ChunkBatch
from routekeel.operators.ema import distance, move
from routekeel.operators.entropy import relative_entropy, route_entropy
from routekeel.operators.gates import softmax
from routekeel.operators.guard import guard_step
from routekeel.operators.hysteresis import emitted_route, standing_winner
from routekeel.operators.kernels_numpy_metrics import chunk_columns, fill_rows, layer_columns
from routekeel.operators.pi import measured_gain, pi_error, pi_update
from routekeel.operators.schedules import schedule, tightened
from routekeel.operators.state import HOLD_LEFT, INTEGRAL, SEEN, SPIKE_RUN, U_PREV, WINNER

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Baseline:
    """The zero-effect route of every row of a chunk: z with unusable rows as 0, softmax(z),
    H_route, R_H; `use`: applied and finite; `rejected`: to be applied but not finite. [T, L, …]"""

    z: F32
    w: F32
    entropy: F32
    relative: F32
    use: Flags
    rejected: Flags
    routing: F32


@dataclass(frozen=True, eq=False)
class Trace:
    """What control did, row by row: before (state rows), w, and scalars by column name. [T, L]"""

    before: F32
    w: F32
    w_hat: F32
    emitted: F32
    values: dict[str, F32]


def run_batch(
    config: RouterConfig, arena: F32, batch: ChunkBatch, gram: F32, output: BatchOutput
) -> None:
    """Applies every chunk in order; arena and output are written in place."""
    for c in range(batch.chunks):
        tokens, layers = int(batch.chunk_tokens[c]), int(batch.chunk_layers[c])
        rows = slice(int(batch.row_start[c]), int(batch.row_start[c + 1]))
        refs = slice(int(batch.slot_start[c]), int(batch.slot_start[c + 1]))
        token_rows = slice(int(batch.token_start[c]), int(batch.token_start[c + 1]))
        k = min(int(batch.top_k[c]), batch.experts)
        shape = (tokens, layers)
        base = _baseline(
            batch.logits[rows].reshape(*shape, batch.experts), batch.apply[rows].reshape(shape) != 0
        )
        a = combine(config, batch.ambiguity[token_rows], base.routing)
        slots = batch.slots[refs]
        states = arena[slots]
        trace = _control(config, states, base, a)
        arena[slots] = states
        output.state[refs] = states
        metrics = fill_rows(trace, base, a, k, gram, batch.gram_index[refs])
        layer_columns(output, refs, metrics, trace, base, k, states)
        output.chunk[c] = chunk_columns(config, base, a)
        used = base.use.any(axis=1)
        output.ambiguity_mask[c] = np.bitwise_or.reduce(a.mask[used], initial=0)
        if batch.detail[c]:
            place = slice(int(batch.detail_start[c]), int(batch.detail_start[c + 1]))
            use = base.use.reshape(-1)
            output.rows[place] = metrics.reshape(-1, metrics.shape[-1])
            output.row_w_base[place][use] = base.w[base.use]
            output.row_w_hat[place][use] = trace.emitted[base.use]


def _baseline(z: F32, apply: Flags) -> Baseline:
    finite = np.asarray(np.isfinite(z).all(axis=-1))
    held = np.where(finite[..., None], z, ZERO)
    w, mass, moment = softmax(held)
    entropy = route_entropy(mass, moment)
    relative = relative_entropy(entropy, z.shape[-1])
    total = np.zeros(z.shape[0], dtype=f32)
    count = np.zeros(z.shape[0], dtype=f32)
    for layer in range(z.shape[1]):
        total = np.where(finite[:, layer], total + relative[:, layer], total)
        count = count + finite[:, layer].astype(f32)
    routing = np.where(count > ZERO, total / np.maximum(count, ONE), f32(np.nan)).astype(f32)
    use = apply & finite
    return Baseline(held, w, entropy, relative, use, apply & ~finite, routing)


def _control(config: RouterConfig, states: F32, base: Baseline, a: Ambiguity) -> Trace:
    """Steps 1–6 for every usable row; `states` [L, width] is advanced in place."""
    tokens, layers, experts = base.z.shape
    beta_0, rate_0 = schedule(config, a.a_star)
    trace = Trace(
        before=np.zeros((tokens, layers, states.shape[1]), dtype=f32),
        w=np.zeros_like(base.z),
        w_hat=np.zeros_like(base.z),
        emitted=np.zeros_like(base.z),
        values={
            name: np.zeros((tokens, layers), dtype=f32)
            for name in ("beta", "lambda", "distance", "pi_error", "spike", "held")
        },
    )
    after = np.zeros((tokens, layers, 6), dtype=f32)
    for t in range(tokens):
        rows = np.flatnonzero(base.use[t])
        if not rows.size:
            continue
        trace.before[t] = states
        state = states[rows]
        known = not np.isnan(a.a_star[t])
        active = known and bool(a.a_star[t] >= f32(config.activation))
        step = _row_step(
            config, state, base.z[t, rows], known, active, beta_0[t : t + 1], rate_0[t : t + 1]
        )
        trace.w[t, rows] = step.w
        trace.w_hat[t, rows] = state[:, :experts]
        trace.emitted[t, rows] = step.emitted
        for name, values in step.values.items():
            trace.values[name][t, rows] = values
        states[rows] = state
        after[t, rows] = state[:, 2 * experts :]
    for place, name in enumerate(("pi_integral", "pi_output", "spike_run", "hold_left")):
        trace.values[name] = after[..., place]
    trace.values["winner"] = after[..., WINNER]
    return trace


@dataclass(frozen=True, eq=False)
class _RowStep:
    w: F32
    emitted: F32
    values: dict[str, F32]


def _row_step(
    config: RouterConfig, state: F32, z: F32, known: bool, active: bool, beta_0: F32, rate_0: F32
) -> _RowStep:
    """One token at n layers; `state` [n, width] is advanced in place."""
    experts = z.shape[-1]
    x = state[:, 2 * experts :]
    rows = z.shape[0]
    beta, rate = np.repeat(beta_0, rows), np.repeat(rate_0, rows)
    error = np.zeros(rows, dtype=f32)
    if active:
        error = pi_error(config, measured_gain(config, z, beta, rate, x[:, U_PREV]))
        x[:, INTEGRAL], x[:, U_PREV] = pi_update(config, error, beta, rate, x[:, INTEGRAL])
        beta, rate = tightened(config, beta, rate, x[:, U_PREV])
    w, _, _ = softmax(z, beta)
    seen = x[:, SEEN] != ZERO
    apart = np.where(seen, distance(w, state[:, :experts]), f32(np.nan)).astype(f32)
    spike = held = np.zeros(rows, dtype=bool)
    if known:
        guard = guard_step(config, apart, x[:, SPIKE_RUN], x[:, HOLD_LEFT])
        spike, held = guard.spike, guard.held
        x[:, SPIKE_RUN], x[:, HOLD_LEFT] = guard.spike_run, guard.hold_left
        if held.any():
            beta = np.where(held, f32(config.beta_min), beta)
            rate = np.where(held, f32(config.lambda_min), rate)
            w, _, _ = softmax(z, beta)
    effective = np.where(seen, rate, ONE).astype(f32)
    old = np.where(seen, x[:, WINNER], f32(-1)).astype(np.int64)
    state[:, :experts] = move(state[:, :experts], w, effective)
    state[:, experts : 2 * experts] = z
    winner = standing_winner(state[:, :experts], old, config.hysteresis)
    x[:, WINNER] = winner
    x[:, SEEN] = ONE
    values = {
        "beta": beta,
        "lambda": rate,
        "distance": apart,
        "pi_error": error,
        "spike": spike.astype(f32),
        "held": held.astype(f32),
    }
    return _RowStep(w, emitted_route(state[:, :experts], winner), values)
