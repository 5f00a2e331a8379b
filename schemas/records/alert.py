"""Alert: one state change of one alert instance (a rule with a set of labels)."""

from __future__ import annotations

from routekeel.schemas.fields import Field, Record
from routekeel.schemas.kinds import DOUBLE, LABEL, LONG, STRING, TIMESTAMP, Enum, Mapping

ALERT_STATUS = Enum(
    "AlertStatus", ("inactive", "pending", "firing", "recovering", "resolved", "no_data", "error")
)

ALERT = Record(
    "Alert",
    1,
    "A state change of an alert instance.",
    (
        Field("fingerprint", STRING, "Hash of rule and labels; key of the topic."),
        Field("rule", LABEL, "Name of the rule."),
        Field("labels", Mapping(), "The instance's labels."),
        Field("episode", LONG, "Counts the instance's episodes, from 1."),
        Field("status", ALERT_STATUS, "The state entered."),
        Field("previous_status", ALERT_STATUS, "The state left."),
        Field("severity", LABEL, "info, warning or critical."),
        Field("value", DOUBLE, "The measured value.", nullable=True),
        Field("threshold", DOUBLE, "What it was compared with.", nullable=True),
        Field("window_from_us", TIMESTAMP, "Start of the query's window.", unit="µs"),
        Field("window_to_us", TIMESTAMP, "End of the query's window.", unit="µs"),
        Field("at_us", TIMESTAMP, "When the state changed.", unit="µs"),
        Field("summary", STRING, "What happened, in a sentence."),
        Field("runbook", STRING, "Section of the runbook.", default=""),
    ),
)
