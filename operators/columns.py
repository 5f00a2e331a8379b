"""Names and order of every output column, declared once for kernels, app and store.

ROW_COLUMNS describe one token at one layer; LAYER_COLUMNS one (chunk, layer); CHUNK_COLUMNS one
chunk. An undefined value is NaN, which the app writes as NULL.
"""

from __future__ import annotations

# Averaged over the chunk's applied tokens where defined; the kernel sums them eight at a time.
MEAN_COLUMNS = (
    "beta",
    "lambda",
    "lambda_effective",
    "route_entropy",
    "relative_entropy",
    "participation_base",
    "participation",
    "vertex_distance_base",
    "vertex_distance",
    "grad_norm_base",
    "grad_norm",
    "g_base",
    "g_controlled",
    "g_secant_base",
    "g_secant_controlled",
    "g_hidden_base",
    "g_hidden_controlled",
    "margin",
    "flip_distance",
    "self_similarity_base",
    "self_similarity",
    "distance",
    "delta_w_hat",
    "route_shift",
)
# Flags of one token, summed to counts of the chunk.
FLAG_COLUMNS = ("winner_flip_base", "winner_flip_controlled", "spike", "held")
# The chunk's value is the one after its last applied token.
LAST_COLUMNS = ("pi_error", "pi_integral", "pi_output", "spike_run", "hold_left")

ROW_COLUMNS = (
    *MEAN_COLUMNS,
    *FLAG_COLUMNS,
    *LAST_COLUMNS,
    "a_star",
    "a_exogenous",
    "applied",
)

LAYER_COLUMNS = (
    *MEAN_COLUMNS,
    "winner_flips_base",
    "winner_flips_controlled",
    "spikes",
    "held",
    *LAST_COLUMNS,
    "g_base_max",
    "g_controlled_max",
    "margin_min",
    "flip_distance_min",
    "load_max_over_mean_base",
    "load_max_over_mean_controlled",
    "load_cv_base",
    "load_cv_controlled",
    "tokens",
    "rejected",
    "beta_last",
    "lambda_last",
)

CHUNK_COLUMNS = (
    "a_star",
    "a_exogenous",
    "predictive",
    "paraphrase",
    "specification",
    "routing",
    "a_star_max",
    "a_star_last",
    "tokens",
    "tokens_known",
    "tokens_high",
    "rows_applied",
    "rows_rejected",
)

# Bits of the ambiguity mask: the components that A* was made of.
AMBIGUITY_BITS = {"predictive": 1, "paraphrase": 2, "specification": 4, "routing": 8}

N_MEAN_COLS = len(MEAN_COLUMNS)
N_ROW_COLS = len(ROW_COLUMNS)
N_LAYER_COLS = len(LAYER_COLUMNS)
N_CHUNK_COLS = len(CHUNK_COLUMNS)

ROW = {name: index for index, name in enumerate(ROW_COLUMNS)}
LAYER = {name: index for index, name in enumerate(LAYER_COLUMNS)}
CHUNK = {name: index for index, name in enumerate(CHUNK_COLUMNS)}
