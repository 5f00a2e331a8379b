"""Weights: the smoothed route of a session after a chunk, for workers and for replay."""

from __future__ import annotations

from routekeel.schemas.fields import Field, Record
from routekeel.schemas.kinds import BYTES, INT, LABEL, LONG, STRING, TIMESTAMP, Matrix, Sequence
from routekeel.schemas.records.telemetry import SOURCE_FIELDS

WEIGHTS = Record(
    "Weights",
    1,
    "The controlled route ŵ and its controls after one chunk, with the state to go on from.",
    (
        *SOURCE_FIELDS,
        Field("session_id", STRING, "The conversation; key of the topic."),
        Field("request_id", STRING, "The request whose chunk led to this state."),
        Field("model", LABEL, "Name of the model."),
        Field("model_revision", LABEL, "Revision of the weights.", default=""),
        Field("event_time_us", TIMESTAMP, "Event time of the chunk.", unit="µs"),
        Field(
            "policy_version", LONG, "Version of the policy in force; 0 is the configured default."
        ),
        Field("policy_arm", LABEL, "Arm of the policy: shadow, control, canary, …"),
        Field(
            "position",
            LONG,
            "Position, in the request, of the last token that this route holds for.",
        ),
        Field("layers", Sequence(INT), "Layer ids, ascending."),
        Field("experts", INT, "E, the number of routed experts."),
        Field(
            "w_hat",
            Matrix("<f4", ("layers", "experts"), decimals=4),
            "ŵ, the smoothed route; sums to 1. In a message: empty where w_hat_half holds it.",
        ),
        Field(
            "w_hat_half",
            Matrix("<f2", ("layers", "experts")),
            "ŵ in half precision, where the worker is set to that.",
            nullable=True,
            stored=False,
        ),
        Field(
            "beta",
            Matrix("<f4", ("layers",), decimals=4),
            "β of the last token.",
            range="β_min…β_max",
        ),
        Field(
            "lam",
            Matrix("<f4", ("layers",), decimals=4),
            "λ of the last token.",
            range="λ_min…λ_max",
        ),
        Field(
            "state",
            BYTES,
            "Snapshot of the session's whole state (streams/topology/session). In a message: empty "
            "where it carries none.",
            stored=False,
        ),
    ),
)
