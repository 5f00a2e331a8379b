"""Every metric once: its name, formula, unit, range, provenance family and the file that has it.

The reference documentation is rendered from this, and a test holds it against the output columns:
a column without a row here, or a row without a column, fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Metric:
    """One metric. `family` is the group whose provenance is stored beside the value."""

    name: str
    formula: str
    unit: str
    range: str
    family: str
    file: str


def _metric(row: str) -> Metric:
    name, formula, unit, span, family, file = (cell.strip() for cell in row.split("|"))
    return Metric(name, formula, unit, span, family, f"operators/{file}.py")


# name | formula | unit | range | family | file
_ROWS: Final = """
a_star | Σ α_i a_i / Σ α_i over known components | 1 | [0, 1] | ambiguity | ambiguity
a_exogenous | A* without the routing component | 1 | [0, 1] | ambiguity | ambiguity
predictive | token entropy / ln vocabulary | 1 | [0, 1] | ambiguity | ambiguity
paraphrase | 1 − mean cosine of answers to paraphrases | 1 | [0, 1] | ambiguity | ambiguity
specification | supplied by the caller | 1 | [0, 1] | ambiguity | ambiguity
routing | mean over layers of H_route/ln E | 1 | [0, 1] | ambiguity | ambiguity
beta | clip(β0 e^−u, β_min, β_max) | 1/logit | [β_min, β_max] or 1 | control | schedules
lambda | clip(λ0 e^−u, λ_min, λ_max) | 1 | [λ_min, λ_max] or 1 | control | schedules
lambda_effective | λ, 1 on the first token | 1 | [0, 1] | control | ema
route_entropy | H_route = −Σ w ln w, w = softmax(z) | nats | [0, ln E] | route | entropy
relative_entropy | H_route / ln E | 1 | [0, 1] | route | entropy
participation_base | 1/Σ w², w = softmax(z) | experts | [1, E] | route | entropy
participation | 1/Σ ŵ² | experts | [1, E] | route | entropy
vertex_distance_base | 1 − max softmax(z) | 1 | [0, 1 − 1/E] | route | entropy
vertex_distance | 1 − max ŵ | 1 | [0, 1 − 1/E] | route | entropy
grad_norm_base | ‖Σ(softmax z)‖_F | 1/logit | [0, 1/√2] | sensitivity | sensitivity
grad_norm | λβ‖Σ(w)‖_F | 1/logit | [0, λβ/√2] | sensitivity | sensitivity
g_base | ‖Σ(softmax z)‖₂ | 1/logit | [0, ½] | sensitivity | sensitivity
g_controlled | λβ‖Σ(w)‖₂ | 1/logit | [0, λβ/2] | sensitivity | sensitivity
g_secant_base | ‖Δ softmax z‖/‖Δz‖ | 1/logit | [0, ½] | sensitivity | sensitivity
g_secant_controlled | ‖Δŵ‖/‖Δz‖ | 1/logit | ≥ 0 | sensitivity | sensitivity
g_hidden_base | ‖Σ(softmax z) W‖₂ | 1/hidden unit | ≥ 0 | hidden | hidden
g_hidden_controlled | λβ‖Σ(w) W‖₂ | 1/hidden unit | ≥ 0 | hidden | hidden
margin | z_(k) − z_(k+1) | logits | ≥ 0 | route | flips
flip_distance | margin/‖W_k − W_(k+1)‖ | hidden units | ≥ 0 | hidden | flips
self_similarity_base | Σ √(w_t w_(t−1)), w = softmax(z) | 1 | [0, 1] | route | ema
self_similarity | S = Σ √(ŵ_t ŵ_(t−1)) | 1 | [0, 1] | route | ema
distance | d = ‖w − ŵ_(t−1)‖₂ before a hold | 1 | [0, √2] | guard | ema
delta_w_hat | ‖ŵ_t − ŵ_(t−1)‖₂ | 1 | [0, √2] | route | ema
route_shift | ‖ŵ − softmax(z)‖₂, what control changes | 1 | [0, √2] | control | ema
winner_flip_base | argmax z changed | 0 or 1 | counted per chunk | route | hysteresis
winner_flip_controlled | emitted winner changed | 0 or 1 | counted per chunk | route | hysteresis
spike | d > spike_distance, not held | 0 or 1 | counted per chunk | guard | guard
held | β = β_min, λ = λ_min by the guard | 0 or 1 | counted per chunk | guard | guard
pi_error | e = λ1 β1 ‖Σ(softmax(β1 z))‖₂ − G_target | 1/logit | [−G_target, ½λβ] | pi | pi
pi_integral | I | 1/logit | [−I_max, I_max] | pi | pi
pi_output | u = k_p e + k_i I, the last one | 1 | ≥ 0 as a ceiling | pi | pi
spike_run | spikes in a row so far | tokens | [0, spike_count) | guard | guard
hold_left | tokens still to be held | tokens | [0, hold_ticks] | guard | guard
load_max_over_mean_base | max/mean of top-k counts of z | 1 | [1, E] | load | load
load_max_over_mean_controlled | the same of the emitted route | 1 | [1, E] | load | load
load_cv_base | σ/mean of top-k counts of z | 1 | [0, √(E − 1)] | load | load
load_cv_controlled | the same of the emitted route | 1 | [0, √(E − 1)] | load | load
g_probe | median_k ‖Δw_k‖/‖Δx_k‖ | 1/hidden unit | ≥ 0 | probe | lipschitz
l_perp | median_k ‖Δy_k‖/‖Δx_k‖, u_k ⟂ drift | 1 | ≥ 0 | probe | lipschitz
l_para | ‖Δy‖/‖Δx‖ along the drift | 1 | ≥ 0 | probe | lipschitz
"""

CATALOG: Final = tuple(_metric(row) for row in _ROWS.strip().splitlines())
METRICS: Final = {metric.name: metric for metric in CATALOG}
FAMILIES: Final = tuple(dict.fromkeys(metric.family for metric in CATALOG))

# Columns that only count or aggregate, by the metric that they are made of.
AGGREGATES: Final = {
    "winner_flips_base": "winner_flip_base",
    "winner_flips_controlled": "winner_flip_controlled",
    "spikes": "spike",
    "g_base_max": "g_base",
    "g_controlled_max": "g_controlled",
    "margin_min": "margin",
    "flip_distance_min": "flip_distance",
    "beta_last": "beta",
    "lambda_last": "lambda",
    "a_star_max": "a_star",
    "a_star_last": "a_star",
}
COUNTERS: Final = (
    "applied",
    "tokens",
    "rejected",
    "tokens_known",
    "tokens_high",
    "rows_applied",
    "rows_rejected",
)
