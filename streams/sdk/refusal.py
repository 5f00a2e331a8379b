"""Why a chunk was not sent: the closed set of reasons, and the exception that carries one inside.

The reasons are labels of a metric, so the set is fixed; the exception never leaves the SDK.
"""

from __future__ import annotations

from typing import Final

BUFFER_FULL: Final = "buffer_full"
QUEUE_FULL: Final = "queue_full"
TOO_LARGE: Final = "too_large"
INVALID_SHAPE: Final = "invalid_shape"
INVALID_FIELD: Final = "invalid_field"
INVALID_SESSION: Final = "invalid_session"
NON_FINITE: Final = "non_finite"
OUT_OF_RANGE: Final = "out_of_range"
UNKNOWN_DTYPE: Final = "unknown_dtype"
SCHEMA_UNAVAILABLE: Final = "schema_unavailable"
REENTRANT: Final = "reentrant"
CLIENT_FAILED: Final = "client_failed"
CLOSED: Final = "closed"
INTERNAL_ERROR: Final = "internal_error"
DELIVERY_FAILED: Final = "delivery_failed"

REASONS: Final[dict[str, str]] = {
    BUFFER_FULL: "The byte budget is used up: the broker takes less than is emitted.",
    QUEUE_FULL: "librdkafka's own queue limit was reached before our budget.",
    TOO_LARGE: "The record would be larger than the topic takes; send fewer tokens per chunk.",
    INVALID_SHAPE: "The logits are not [T, L, E] within the limits, or `layers` does not fit them.",
    INVALID_FIELD: "Another argument is missing, of the wrong type or out of its range.",
    INVALID_SESSION: "session_id is empty, longer than 512 bytes, starts with NUL or is no text.",
    NON_FINITE: "The logits hold NaN or infinity.",
    OUT_OF_RANGE: "A logit is too large for the encoding (float16 ends at 65504).",
    UNKNOWN_DTYPE: "The logits are not real numbers in host memory.",
    SCHEMA_UNAVAILABLE: "The registry has not answered yet, so the schema id is not known.",
    REENTRANT: "emit_logits was called from within itself (a signal handler, a finaliser).",
    CLIENT_FAILED: "The Kafka client could not be made or refused the record.",
    CLOSED: "The producer is closed.",
    INTERNAL_ERROR: "An error in the SDK; its traceback is in the log once.",
    DELIVERY_FAILED: "Handed over, but not acknowledged in time or refused by the broker.",
}


class Refused(Exception):
    """A chunk that will not be sent; `reason` is one of REASONS, `message` says what is wrong."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
