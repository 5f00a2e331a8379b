"""RouterLogits: one chunk of consecutive tokens of one session in one inference worker.

This is what an inference worker publishes; everything downstream is computed from it.
"""

from __future__ import annotations

from routekeel.schemas.fields import Field, Record
from routekeel.schemas.kinds import (
    BOOLEAN,
    BYTES,
    DOUBLE,
    FLOAT,
    INT,
    LABEL,
    LONG,
    STRING,
    TIMESTAMP,
    Enum,
    Matrix,
    Nested,
    Sequence,
)

# A reader that is older than an encoding sees UNKNOWN, which it refuses, and never a wrong matrix.
ENCODING = Enum("LogitsEncoding", ("UNKNOWN", "F32", "F16", "TOPM_F16"))
PHASE = Enum("Phase", ("decode", "prefill"))

PROBE_FIELDS = (
    Field("step", INT, "Row of the chunk (0-based token) at which the probe was run."),
    Field("layers", Sequence(INT), "Layer ids that were probed."),
    Field(
        "epsilon", FLOAT, "Relative size of the perturbation, ‖Δx‖ = epsilon·‖x‖.", range="(0, 1)"
    ),
    Field(
        "basis_id",
        STRING,
        "Names the set of orthonormal directions, so that probes are comparable.",
    ),
    Field("directions", INT, "K, how many directions were tried per layer."),
    Field("dx_norm", Matrix("<f4", ("layers", "directions")), "‖Δx_k‖ per layer and direction."),
    Field("dw_norm", Matrix("<f4", ("layers", "directions")), "‖Δw_k‖ of the route."),
    Field("dy_norm", Matrix("<f4", ("layers", "directions")), "‖Δy_k‖ of the MoE block's output."),
    Field(
        "drift_dx_norm",
        Matrix("<f4", ("layers",)),
        "‖Δx‖ along the drift x_t − x_{t−1}.",
        nullable=True,
    ),
    Field("drift_dy_norm", Matrix("<f4", ("layers",)), "‖Δy‖ along the drift.", nullable=True),
)

ROUTER_LOGITS = Record(
    "RouterLogits",
    1,
    "Router logits of consecutive tokens of one session, as the engine computed them.",
    (
        Field(
            "session_id",
            STRING,
            "The conversation; key of the topic. Not empty, at most 512 bytes.",
        ),
        Field(
            "request_id",
            STRING,
            "The request within the session; requests of a session share its state. This and every "
            "other text but session_id has at most 1024 bytes.",
        ),
        Field("model", LABEL, "Name of the model that was served."),
        Field(
            "model_revision", LABEL, "Revision (commit or content hash) of the weights.", default=""
        ),
        Field(
            "backend",
            LABEL,
            "Inference engine: vllm, mlx, ollama, llamacpp, reference, synthetic, …",
        ),
        Field("worker_id", LABEL, "Which inference worker sent this.", default=""),
        Field("producer_epoch", LONG, "Start of the producing process.", unit="µs since 1970"),
        Field("sequence", LONG, "Counts the chunks of this producer and session, from 0."),
        Field(
            "event_time_us", TIMESTAMP, "When the last token of the chunk was computed.", unit="µs"
        ),
        Field("phase", PHASE, "Prefill (prompt) or decode (generated)."),
        Field(
            "position_start", LONG, "Position, in the request, of the first token of this chunk."
        ),
        Field("steps", INT, "T, the number of tokens.", range="1…4096"),
        Field(
            "layers",
            Sequence(INT),
            "The layer ids in this chunk, ascending; a pipeline stage sends its own. (Highest id + 1) · E "
            "is at most 131072, T · L · E at most 8388608.",
            range="0…1023",
        ),
        Field("rank_data", INT, "Data-parallel rank.", default=0),
        Field("rank_tensor", INT, "Tensor-parallel rank.", default=0),
        Field("rank_pipeline", INT, "Pipeline-parallel rank.", default=0),
        Field("rank_expert", INT, "Expert-parallel rank.", default=0),
        Field("experts", INT, "E, the number of routed experts.", range="1…4096"),
        Field("top_k", INT, "How many experts the model activates per token."),
        Field("router_kind", LABEL, "softmax, sigmoid, sigmoid_bias, …", default="softmax"),
        Field(
            "encoding",
            ENCODING,
            "How `logits` is laid out: F32 or F16 [T, L, E]; TOPM_F16 is per (token, layer) the m "
            "largest logits (float16, descending), their expert ids (uint16) and the logsumexp of "
            "the rest (float32).",
        ),
        Field("top_m", INT, "m of TOPM_F16; 0 for the dense encodings.", default=0),
        Field("logits", BYTES, "Router logits, little-endian, C order, token-major."),
        Field(
            "token_ids",
            Matrix("<i4", ("steps",)),
            "Token ids; off by default: they reveal text.",
            nullable=True,
        ),
        Field(
            "token_entropy",
            Matrix("<f4", ("steps",)),
            "Entropy of the next-token distribution after this token.",
            nullable=True,
            unit="nats",
        ),
        Field(
            "vocabulary_size",
            INT,
            "Size of the vocabulary, normalises token_entropy.",
            nullable=True,
        ),
        Field(
            "ambiguity_predictive",
            Matrix("<f4", ("steps",)),
            "Predictive ambiguity supplied by the caller; overrides token_entropy.",
            nullable=True,
            range="0…1",
        ),
        Field(
            "ambiguity_paraphrase",
            Matrix("<f4", ("steps",)),
            "1 − mean cosine between answers to paraphrases, supplied by the caller.",
            nullable=True,
            range="0…1",
        ),
        Field(
            "ambiguity_specification",
            Matrix("<f4", ("steps",)),
            "How underspecified the request is, supplied by the caller.",
            nullable=True,
            range="0…1",
        ),
        Field(
            "probe",
            Nested("Probe", PROBE_FIELDS),
            "A measured perturbation of the hidden state.",
            nullable=True,
        ),
        Field(
            "flip_distance",
            Matrix("<f4", ("steps", "layers")),
            "Distance of the hidden state to another top-k set, from a worker that knows W.",
            nullable=True,
        ),
        Field("latency_us", LONG, "Time the engine took for this chunk.", nullable=True, unit="µs"),
        Field("success", BOOLEAN, "Whether the request succeeded, where known.", nullable=True),
        Field(
            "judge_score",
            DOUBLE,
            "A quality score of the answer, where there is one.",
            nullable=True,
        ),
        Field("task_type", LABEL, "A label of the caller's for grouping.", nullable=True),
        Field(
            "applied_policy_version",
            LONG,
            "Policy that controlled these tokens, if any.",
            nullable=True,
        ),
        Field(
            "dropped_before",
            LONG,
            "Chunks that the SDK dropped since the last one it sent.",
            default=0,
        ),
    ),
)
