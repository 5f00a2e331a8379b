"""Telemetry: what one input chunk showed, with per-layer columns inside.

Exactly one record per input record that is not refused, duplicates included (they have
`tokens_applied` = 0), so that an audit can account for every source offset. NaN in a column is
NULL.
"""

from __future__ import annotations

from routekeel.schemas.fields import Field, Record
from routekeel.schemas.kinds import (
    BOOLEAN,
    DOUBLE,
    FLOAT,
    INT,
    LABEL,
    LONG,
    OFFSET,
    RATIO,
    STRING,
    TIMESTAMP,
    Enum,
    Matrix,
    Nested,
    Sequence,
)
from routekeel.schemas.records.router_logits import PHASE

PROVENANCE = Enum("Provenance", ("unavailable", "measured", "derived", "proxy"))

PROVENANCE_FAMILIES: tuple[tuple[str, str], ...] = (
    ("ambiguity", "A* and its components"),
    ("route", "entropy, flips, margins, load, self-similarity"),
    ("sensitivity", "G base, controlled and secant, ‖∇w‖ in logit space"),
    ("hidden", "G in hidden space (needs the router matrix)"),
    ("flip_distance", "flip distance (needs the router matrix)"),
    ("probe", "L⊥, L∥ and G probe"),
    ("latency", "latency_us"),
    ("quality", "success and judge_score"),
)

SOURCE_FIELDS = (
    Field("source_topic", LABEL, "Topic of the chunk that this was computed from."),
    Field(
        "source_topic_id",
        LABEL,
        "Kafka's id of that topic; tells a recreated topic from the old one.",
    ),
    Field("source_partition", INT, "Partition of the chunk."),
    Field("source_offset", OFFSET, "Offset of the chunk; with the two above the deterministic id."),
)

_ROW = ("layers",)


def _layer(
    name: str, doc: str, *, unit: str = "", value_range: str = "", decimals: int = 4
) -> Field:
    return Field(name, Matrix("<f4", _ROW, decimals=decimals), doc, unit=unit, range=value_range)


LAYER_FIELDS = (
    _layer("tokens", "Tokens applied at this layer.", decimals=0),
    _layer("beta", "Mean β.", value_range="β_min…β_max"),
    _layer("lam", "Mean λ.", value_range="λ_min…λ_max"),
    _layer("route_entropy", "Mean H of softmax(z).", unit="nats", value_range="0…ln E"),
    _layer("relative_entropy", "Mean R_H of ŵ, H/ln E.", value_range="0…1"),
    _layer("participation", "Mean R_PR of ŵ, 1/Σŵ².", value_range="1…E"),
    _layer("vertex_distance", "Mean distance of ŵ to a vertex, 1 − max ŵ.", value_range="0…1"),
    _layer("grad_norm", "Mean ‖∇w‖ = λβ‖Σ(w)‖_F.", decimals=6),
    _layer("g_base", "Mean G at β = 1, λ = 1.", value_range="0…½", decimals=6),
    _layer("g_base_max", "Largest G base of the chunk.", value_range="0…½", decimals=6),
    _layer("g_controlled", "Mean G under the controls.", decimals=6),
    _layer("g_controlled_max", "Largest G controlled of the chunk.", decimals=6),
    _layer("g_secant_base", "Mean ‖Δw‖/‖Δz‖ of softmax(z).", decimals=6),
    _layer("g_secant_controlled", "Mean ‖Δŵ‖/‖Δz‖.", decimals=6),
    _layer("g_hidden_base", "Mean G base in hidden space, ‖ΣW‖₂.", decimals=6),
    _layer("g_hidden_controlled", "Mean G controlled in hidden space.", decimals=6),
    _layer("flip_distance_min", "Smallest flip distance of the chunk."),
    _layer("margin", "Mean margin at the top-k edge.", unit="logits"),
    _layer("margin_min", "Smallest margin of the chunk.", unit="logits"),
    _layer("self_similarity", "Mean S = Σ√(ŵ_t ŵ_{t−1}).", value_range="0…1"),
    _layer("distance", "Mean ‖w − ŵ_{t−1}‖₂.", value_range="0…√2", decimals=6),
    _layer("delta_w_hat", "Mean ‖ŵ_t − ŵ_{t−1}‖₂ (jitter).", value_range="0…√2", decimals=6),
    _layer("winner_flips_base", "How often the argmax of softmax(z) changed.", decimals=0),
    _layer("winner_flips_controlled", "How often the argmax of ŵ changed.", decimals=0),
    _layer("pi_error", "PI error after the last token.", decimals=6),
    _layer("pi_integral", "PI integral after the last token.", decimals=6),
    _layer("pi_output", "PI output after the last token.", decimals=6),
    _layer("spikes", "Spikes counted.", decimals=0),
    _layer("held", "Tokens held by the guard.", decimals=0),
    _layer("load_max_over_mean", "Largest expert load over the mean load.", value_range="1…E"),
    _layer("load_cv", "Coefficient of variation of the expert load.", value_range="≥ 0"),
    _layer("g_probe", "Median ‖Δw‖/‖Δx‖ of the probe.", decimals=6),
    _layer("l_perp", "L⊥, median ‖Δy‖/‖Δx‖ across the drift; < 1 is contraction."),
    _layer("l_para", "L∥, ‖Δy‖/‖Δx‖ along the drift."),
)

_TOKEN = ("steps", "layers")
TOKEN_FIELDS = (
    Field("steps", INT, "T, the tokens in this group."),
    Field(
        "token_ids",
        Matrix("<i4", ("steps",)),
        "Token ids, where the chunk had them.",
        nullable=True,
    ),
    Field("a_star", Matrix("<f4", ("steps",), 4), "A* of each token.", range="0…1"),
    Field(
        "applied", Matrix("|u1", _TOKEN), "1 where the row was applied, 0 where it was a repeat."
    ),
    Field("beta", Matrix("<f4", _TOKEN, 4), "β."),
    Field("lam", Matrix("<f4", _TOKEN, 4), "λ."),
    Field("route_entropy", Matrix("<f4", _TOKEN, 4), "H of softmax(z).", unit="nats"),
    Field("g_base", Matrix("<f4", _TOKEN, 6), "G at β = 1, λ = 1."),
    Field("g_controlled", Matrix("<f4", _TOKEN, 6), "G under the controls."),
    Field("margin", Matrix("<f4", _TOKEN, 4), "Margin at the top-k edge.", unit="logits"),
    Field("flip_base", Matrix("|u1", _TOKEN), "1 where the argmax of softmax(z) changed."),
    Field("flip_controlled", Matrix("|u1", _TOKEN), "1 where the argmax of ŵ changed."),
    Field("w_base", Matrix("<f2", ("steps", "layers", "experts"), 4), "softmax(z)."),
    Field("w_hat", Matrix("<f2", ("steps", "layers", "experts"), 4), "ŵ after each token."),
)

TELEMETRY = Record(
    "Telemetry",
    1,
    "Metrics of one chunk: per-layer columns over its tokens; per-token rows for sampled sessions.",
    (
        *SOURCE_FIELDS,
        Field("session_id", STRING, "The conversation; key of the topic."),
        Field("request_id", STRING, "The request within the session."),
        Field("model", LABEL, "Name of the model."),
        Field("model_revision", LABEL, "Revision of the weights.", default=""),
        Field("backend", LABEL, "Inference engine."),
        Field("worker_id", LABEL, "Inference worker.", default=""),
        Field("producer_epoch", LONG, "Start of the producing process.", unit="µs since 1970"),
        Field("sequence", LONG, "The producer's count of this session's chunks."),
        Field(
            "event_time_us", TIMESTAMP, "When the last token of the chunk was computed.", unit="µs"
        ),
        Field("phase", PHASE, "Prefill or decode."),
        Field("position", LONG, "Position, in the request, of the chunk's first token."),
        Field("steps", INT, "T, tokens in the chunk."),
        Field("experts", INT, "E, routed experts."),
        Field("top_k", INT, "Experts activated per token."),
        Field("router_kind", LABEL, "softmax, sigmoid, …", default="softmax"),
        Field(
            "policy_version", LONG, "Version of the policy in force; 0 is the configured default."
        ),
        Field("policy_arm", LABEL, "Arm of the policy: shadow, control, canary, …"),
        Field(
            "tokens_applied",
            INT,
            "Tokens that were new at one layer at least; 0: the chunk is a repeat.",
        ),
        Field(
            "rows_repeated",
            INT,
            "(token, layer) rows that had been applied before and changed nothing.",
        ),
        Field("positions_missing", LONG, "Tokens missing before this chunk (a gap in positions)."),
        Field("sequences_missing", LONG, "Chunks missing before this one by the producer's count."),
        Field(
            "state_reset",
            LABEL,
            "Why the session's state began anew here; empty where it did not.",
            default="",
        ),
        Field("dropped_before", LONG, "Chunks the SDK says it dropped before this one."),
        Field(
            "ambiguity_mask",
            INT,
            "Components used in A*: 1 predictive, 2 paraphrase, 4 specification, 8 routing.",
        ),
        Field("a_star", RATIO, "Mean A* over the applied tokens.", nullable=True, range="0…1"),
        Field(
            "a_exogenous",
            RATIO,
            "The same without the routing component.",
            nullable=True,
            range="0…1",
        ),
        Field("clarity", RATIO, "C = 1 − A*.", nullable=True, range="0…1"),
        Field(
            "ambiguity_predictive", RATIO, "Mean predictive component.", nullable=True, range="0…1"
        ),
        Field(
            "ambiguity_paraphrase", RATIO, "Mean paraphrase component.", nullable=True, range="0…1"
        ),
        Field(
            "ambiguity_specification",
            RATIO,
            "Mean specification component.",
            nullable=True,
            range="0…1",
        ),
        Field(
            "ambiguity_routing",
            RATIO,
            "Mean routing component H_route/ln E.",
            nullable=True,
            range="0…1",
        ),
        Field(
            "layers", Sequence(INT), "Layer ids, ascending; the columns below follow this order."
        ),
        *LAYER_FIELDS,
        Field(
            "load",
            Matrix("<u2", ("layers", "experts")),
            "Tokens whose base top-k chose each expert.",
        ),
        Field(
            "load_controlled", Matrix("<u2", ("layers", "experts")), "The same for the top-k of ŵ."
        ),
        Field("probe_epsilon", FLOAT, "Relative size of the probe's perturbation.", nullable=True),
        Field("probe_basis_id", LABEL, "Set of directions the probe used.", nullable=True),
        Field("probe_directions", INT, "K of the probe.", nullable=True),
        Field("latency_us", LONG, "Engine time for the chunk.", nullable=True, unit="µs"),
        Field("success", BOOLEAN, "Whether the request succeeded.", nullable=True),
        Field("judge_score", DOUBLE, "Quality score.", nullable=True),
        Field("task_type", LABEL, "The caller's label.", nullable=True),
        Field(
            "applied_policy_version", LONG, "Policy that the worker applied, if any.", nullable=True
        ),
        *(
            Field(f"provenance_{family}", PROVENANCE, f"Where this comes from: {covers}.")
            for family, covers in PROVENANCE_FAMILIES
        ),
        Field(
            "token_rows",
            Nested("TokenRows", TOKEN_FIELDS),
            "Every token, for sampled sessions.",
            nullable=True,
            stored=False,
        ),
    ),
)
