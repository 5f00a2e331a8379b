"""Where the compiled kernel keeps what: offsets into its scratch buffer, columns and parameters.

Numba bakes module-level integers into the code, so every name here costs nothing at run time.
"""

from __future__ import annotations

from typing import Final

from routekeel.operators.columns import CHUNK, LAYER, N_ROW_COLS, ROW
from routekeel.operators.config import PACKED

# One layer's region: six padded vectors, then (from TAIL) rows of scalars.
Z, W_BASE, W_BASE_PREV, W_HAT, Z_PREV, W, VECTORS = range(7)
METRICS: Final = 0
METRICS_SIZE: Final = 40
SUMS: Final = METRICS + METRICS_SIZE
COUNTS: Final = SUMS + 24
SCALARS: Final = COUNTS + 24
TAIL_SIZE: Final = SCALARS + 32
# The session's six scalars come first, in the order of the packed state.
(
    INTEGRAL,
    U_PREV,
    SPIKE_RUN,
    HOLD_LEFT,
    SEEN,
    WINNER,
    USE,
    Z_MAX,
    TOP_BASE,
    TOP_W,
    NORMS_KNOWN,
    LOGIT_STEP,
    WINNER_BASE,
    WINNER_BASE_PREV,
    FLIPS_BASE,
    FLIPS_CONTROLLED,
    SPIKES,
    HELD_COUNT,
    G_BASE_MAX,
    G_CONTROLLED_MAX,
    MARGIN_MIN,
    FLIP_DISTANCE_MIN,
    TOKENS,
    REJECTED,
) = range(24)
# Shared vectors behind the layers' regions: the emitted route, counts, and the Lanczos vectors.
ROUTE, LOADS, KRYLOV, KRYLOV_PREV, PRODUCT, PRODUCT_2, SHARED = range(7)
# Behind them a ledger of scalars: a token's ambiguity, its sums and counts over the chunk, and the
# two diagonals of the Lanczos matrix.
LEDGER_PARTS, LEDGER_SUMS, LEDGER_COUNTS, LEDGER_TRIDIAGONAL, LEDGER_SIZE = 0, 8, 16, 24, 64

ROW_WIDTH: Final = N_ROW_COLS
BETA: Final = ROW["beta"]
LAMBDA: Final = ROW["lambda"]
LAMBDA_EFFECTIVE: Final = ROW["lambda_effective"]
ROUTE_ENTROPY: Final = ROW["route_entropy"]
RELATIVE_ENTROPY: Final = ROW["relative_entropy"]
PARTICIPATION_BASE: Final = ROW["participation_base"]
PARTICIPATION: Final = ROW["participation"]
VERTEX_DISTANCE_BASE: Final = ROW["vertex_distance_base"]
VERTEX_DISTANCE: Final = ROW["vertex_distance"]
GRAD_NORM_BASE: Final = ROW["grad_norm_base"]
GRAD_NORM: Final = ROW["grad_norm"]
G_BASE: Final = ROW["g_base"]
G_CONTROLLED: Final = ROW["g_controlled"]
G_SECANT_BASE: Final = ROW["g_secant_base"]
G_SECANT_CONTROLLED: Final = ROW["g_secant_controlled"]
G_HIDDEN_BASE: Final = ROW["g_hidden_base"]
G_HIDDEN_CONTROLLED: Final = ROW["g_hidden_controlled"]
MARGIN: Final = ROW["margin"]
FLIP_DISTANCE: Final = ROW["flip_distance"]
SELF_SIMILARITY_BASE: Final = ROW["self_similarity_base"]
SELF_SIMILARITY: Final = ROW["self_similarity"]
DISTANCE: Final = ROW["distance"]
DELTA_W_HAT: Final = ROW["delta_w_hat"]
ROUTE_SHIFT: Final = ROW["route_shift"]
FLIP_BASE: Final = ROW["winner_flip_base"]
FLIP_CONTROLLED: Final = ROW["winner_flip_controlled"]
SPIKE: Final = ROW["spike"]
HELD: Final = ROW["held"]
PI_ERROR: Final = ROW["pi_error"]
PI_INTEGRAL: Final = ROW["pi_integral"]
PI_OUTPUT: Final = ROW["pi_output"]
SPIKE_RUN_ROW: Final = ROW["spike_run"]
HOLD_LEFT_ROW: Final = ROW["hold_left"]
A_STAR: Final = ROW["a_star"]
A_EXOGENOUS: Final = ROW["a_exogenous"]
APPLIED: Final = ROW["applied"]

# The layer columns from here on follow LAYER_COLUMNS in order.
LAYER_FLAGS: Final = LAYER["winner_flips_base"]
LAYER_LAST: Final = LAYER["pi_error"]
LAYER_EXTREMES: Final = LAYER["g_base_max"]
LAYER_LOAD: Final = LAYER["load_max_over_mean_base"]
LAYER_TOKENS: Final = LAYER["tokens"]
LAYER_REJECTED: Final = LAYER["rejected"]
LAYER_BETA_LAST: Final = LAYER["beta_last"]
LAYER_LAMBDA_LAST: Final = LAYER["lambda_last"]

CHUNK_PARTS: Final = CHUNK["a_star"]
CHUNK_A_MAX: Final = CHUNK["a_star_max"]
CHUNK_A_LAST: Final = CHUNK["a_star_last"]
CHUNK_TOKENS: Final = CHUNK["tokens"]
CHUNK_KNOWN: Final = CHUNK["tokens_known"]
CHUNK_HIGH: Final = CHUNK["tokens_high"]
CHUNK_APPLIED: Final = CHUNK["rows_applied"]
CHUNK_REJECTED: Final = CHUNK["rows_rejected"]

(
    BETA_MIN,
    BETA_MAX,
    LAMBDA_MIN,
    LAMBDA_MAX,
    ACTIVATION,
    G_TARGET,
    K_P,
    K_I,
    INTEGRAL_MAX,
    DEAD_BAND,
    REGULATE,
    KNEE,
    SPIKE_DISTANCE,
    SPIKE_COUNT,
    HOLD_TICKS,
    HYSTERESIS,
    ALPHA_PREDICTIVE,
    ALPHA_PARAPHRASE,
    ALPHA_SPECIFICATION,
    ALPHA_ROUTING,
    LN_EXPERTS,
) = range(len(PACKED) + 1)
