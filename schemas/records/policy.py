"""Policy: a versioned set of control parameters and who gets them (compacted by policy_id)."""

from __future__ import annotations

from routekeel.schemas.fields import Field, Record
from routekeel.schemas.kinds import BOOLEAN, INT, LABEL, LONG, STRING, TIMESTAMP, Enum, Sequence

ROLLOUT = Enum("RolloutStage", ("shadow", "canary", "ramp", "full", "reverted"))

POLICY = Record(
    "Policy",
    1,
    "One version of the control policy. The highest version holds; a revert is a new version.",
    (
        Field("policy_id", STRING, "Name of the policy; key of the topic."),
        Field("version", LONG, "Grows by one with every change.", range="≥ 1"),
        Field("issued_at_us", TIMESTAMP, "When this version was issued.", unit="µs"),
        Field("stage", ROLLOUT, "How far the rollout has come."),
        Field(
            "salt", STRING, "Salt of the bucket hash, so that policies draw independent sessions."
        ),
        Field("arms", Sequence(LABEL), "Names of the arms, e.g. control, treatment."),
        Field(
            "arm_bucket_ends", Sequence(INT), "Exclusive upper bucket of each arm.", range="0…10000"
        ),
        Field("arm_parameters", Sequence(STRING), "Control parameters of each arm, as JSON."),
        Field(
            "applied", BOOLEAN, "Whether workers apply the route; false is the zero-effect shadow."
        ),
        Field(
            "quality_budget",
            STRING,
            "Measured cost that permits application, as JSON.",
            nullable=True,
        ),
        Field("reverts_version", LONG, "The version that this one takes back.", nullable=True),
        Field("reason", STRING, "Why it was issued.", default=""),
    ),
)
