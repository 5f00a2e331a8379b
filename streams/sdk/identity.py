"""Which session, request and moment a chunk belongs to: checked, and encoded for the record."""

from __future__ import annotations

from typing import Any

from routekeel.schemas.limits import (
    EVENT_TIME_US_MAX,
    EVENT_TIME_US_MIN,
    POSITION_MAX,
    SESSION_ID_BYTES_MAX,
)
from routekeel.streams.sdk.encode import PHASES, Times, head, long
from routekeel.streams.sdk.optional import LONG_MAX, check_integer, check_text
from routekeel.streams.sdk.refusal import INVALID_FIELD, INVALID_SESSION, Refused

_times = Times()


def check_session(session_id: Any) -> None:
    """Raise Refused unless it is 1…512 bytes of UTF-8 that do not start with NUL."""
    if not isinstance(session_id, str) or not session_id or session_id[0] == "\0":
        raise Refused(
            INVALID_SESSION,
            f"session_id is {session_id!r}, it must be text, not empty, not starting with NUL",
        )
    try:
        size = len(session_id.encode())
    except UnicodeEncodeError:
        raise Refused(INVALID_SESSION, f"session_id {session_id!r} is not valid text") from None
    if size > SESSION_ID_BYTES_MAX:
        raise Refused(
            INVALID_SESSION, f"session_id has {size} bytes, at most {SESSION_ID_BYTES_MAX}"
        )


def request_head(
    schema_id: int,
    session_id: str,
    request_id: str,
    model: str,
    model_revision: str,
    backend: str,
    worker_id: str,
    producer_epoch: int,
) -> bytes:
    """The checked and encoded head of a request's records. Raises Refused."""
    for name, value in (("model", model), ("backend", backend)):
        if not value:
            raise Refused(INVALID_FIELD, f"{name} is missing: give it here or to the Producer")
    for name, value in (
        ("request_id", request_id),
        ("model", model),
        ("model_revision", model_revision),
        ("backend", backend),
        ("worker_id", worker_id),
    ):
        check_text(name, value)
    epoch = check_integer("producer_epoch", producer_epoch, 0, LONG_MAX)
    return head(
        schema_id,
        session_id,
        request_id,
        model,
        model_revision,
        backend,
        worker_id,
        epoch,
    )


def chunk_moment(event_time_us: int, phase: str, position_start: int) -> bytes:
    """The encoded event time, phase and position. Raises Refused."""
    if (
        type(event_time_us) is not int
        or not EVENT_TIME_US_MIN <= event_time_us <= EVENT_TIME_US_MAX
    ):
        event_time_us = check_integer(
            "event_time_us", event_time_us, EVENT_TIME_US_MIN, EVENT_TIME_US_MAX
        )
    code = PHASES.get(phase) if type(phase) is str else None
    if code is None:
        raise Refused(INVALID_FIELD, f"phase is {phase!r}, it is one of {', '.join(PHASES)}")
    if type(position_start) is not int or not 0 <= position_start <= POSITION_MAX:
        position_start = check_integer("position_start", position_start, 0, POSITION_MAX)
    return _times.encode(event_time_us) + code + long(position_start)
