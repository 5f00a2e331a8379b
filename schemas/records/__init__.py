"""The records, one file each: the only place where a field of an event is declared."""

from routekeel.schemas.fields import Record
from routekeel.schemas.records.alert import ALERT
from routekeel.schemas.records.dead_letter import DEAD_LETTER
from routekeel.schemas.records.policy import POLICY
from routekeel.schemas.records.router_logits import ROUTER_LOGITS
from routekeel.schemas.records.telemetry import TELEMETRY
from routekeel.schemas.records.weights import WEIGHTS

RECORDS: tuple[Record, ...] = (ROUTER_LOGITS, TELEMETRY, WEIGHTS, POLICY, ALERT, DEAD_LETTER)

__all__ = ["ALERT", "DEAD_LETTER", "POLICY", "RECORDS", "ROUTER_LOGITS", "TELEMETRY", "WEIGHTS"]
