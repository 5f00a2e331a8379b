"""Reads newline-delimited JSON chunks; docs/PRODUCE.md describes the format.

A bad line is reported with its number, the field and the reason, and the good ones go on. Lines are
read one at a time, so that a file may be larger than the memory.
"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from routekeel.streams.errors import ConfigurationError
from routekeel.streams.produce.check import ChunkCheck
from routekeel.streams.produce.chunk import Chunk

LINE_BYTES_MAX = 256 * 2**20
STDIN = "-"
REQUIRED = ("session_id", "position_start", "logits")
OPTIONAL = (
    "request_id",
    "model",
    "model_revision",
    "backend",
    "layers",
    "top_k",
    "router_kind",
    "phase",
    "event_time_us",
    "sequence",
    "producer_epoch",
    "ambiguity",
    "token_ids",
    "token_entropy",
    "vocabulary_size",
    "flip_distance",
    "probe",
    "latency_us",
    "success",
    "judge_score",
    "task_type",
    "applied_policy_version",
)
KNOWN = frozenset((*REQUIRED, *OPTIONAL))
_BOOLEANS = frozenset({"success"})


class BadLine(NamedTuple):
    """A line that was skipped. `line` counts from 1; `field` is empty where it is no JSON object.

    >>> str(BadLine(3, "logits", "non_finite", "logits hold NaN or infinity"))
    'line 3, logits: logits hold NaN or infinity (non_finite)'
    """

    line: int
    field: str
    reason: str
    message: str

    def __str__(self) -> str:
        where = f"line {self.line}" + (f", {self.field}" if self.field else "")
        return f"{where}: {self.message} ({self.reason})"


class _Bad(Exception):
    def __init__(self, field: str, reason: str, message: str) -> None:
        self.parts = (field, reason, message)


def read_ndjson(
    stream: IO[bytes], check: ChunkCheck, on_bad: Callable[[BadLine], None]
) -> Iterator[Chunk]:
    """The good chunks of a binary stream, in order; each bad line goes to `on_bad`.

    `check` holds the producer's defaults. Empty lines are passed over. Nothing is raised for bad
    content; what reading the stream raises comes through.
    """
    number = 0
    while line := stream.readline(LINE_BYTES_MAX + 1):
        number += 1
        try:
            if len(line) > LINE_BYTES_MAX:
                _skip_line(stream, line)
                raise _Bad("", "line_too_long", f"more than {LINE_BYTES_MAX} bytes")
            if not line.strip():
                continue
            chunk = _chunk(_object(line), number)
            problem = check.check(chunk)
            if problem is not None:
                field, refused = problem
                raise _Bad(field, refused.reason, refused.message)
        except _Bad as bad:
            on_bad(BadLine(number, *bad.parts))
            continue
        yield chunk


@contextmanager
def open_ndjson(path: str | Path) -> Iterator[IO[bytes]]:
    """The file, or standard input for '-'. Raises ConfigurationError where it cannot be opened."""
    if str(path) == STDIN:
        yield sys.stdin.buffer
        return
    try:
        stream = Path(path).open("rb")  # noqa: SIM115
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
    with stream:
        yield stream


def _object(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise _Bad("", "not_json", f"column {error.colno}: {error.msg}") from None
    except (UnicodeDecodeError, RecursionError) as error:
        raise _Bad("", "not_json", str(error)) from None
    if not isinstance(value, dict):
        raise _Bad("", "not_json", f"a JSON object is needed, not {type(value).__name__}")
    return value


def _chunk(value: dict[str, Any], number: int) -> Chunk:
    for name in value:
        if name not in KNOWN:
            near = difflib.get_close_matches(name, KNOWN, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise _Bad(name, "unknown_field", f"there is no such field{hint}")
    for name in REQUIRED:
        if value.get(name) is None:
            raise _Bad(name, "missing_field", "is missing")
    try:
        logits = np.asarray(value["logits"], np.float64)
    except (TypeError, ValueError):
        raise _Bad(
            "logits", "invalid_shape", "must be numbers in three levels of lists, [T][L][E]"
        ) from None
    fields = {
        name: content
        for name, content in value.items()
        if content is not None and name not in ("session_id", "logits")
    }
    for name, content in fields.items():
        if isinstance(content, bool) != (name in _BOOLEANS):
            raise _Bad(name, "invalid_field", f"is {json.dumps(content)[:80]}")
    return Chunk(value["session_id"], logits, fields, f"line {number}")


def _skip_line(stream: IO[bytes], line: bytes) -> None:
    while line and not line.endswith(b"\n"):
        line = stream.readline(2**20)
