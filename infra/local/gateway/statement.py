"""Reads an HTTP request into one statement: text, data, parameters, settings, session.

What ClickHouse's HTTP interface calls reserved parameters ends here; every other URL parameter
is a setting, and the engine itself judges whether it exists.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from routekeel.infra.local.gateway import sql
from routekeel.infra.local.gateway.replies import (
    NOT_IMPLEMENTED,
    OUTFILE_NOT_ALLOWED,
    SYNTAX_ERROR,
    UNKNOWN_SETTING,
    ClickHouseError,
)

SESSION_TIMEOUT_S = 60
SESSION_TIMEOUT_S_MAX = 3600
_SETTING = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*\Z")

# Read here or by the HTTP layer, or without meaning for an embedded engine.
RESERVED = frozenset(
    [
        "query",
        "database",
        "default_format",
        "query_id",
        "session_id",
        "session_timeout",
        "session_check",
        "user",
        "password",
        "quota_key",
        "role",
        "stacktrace",
        "wait_end_of_query",
        "buffer_size",
        "compress",
        "decompress",
        "close_session",
        "client_protocol_version",
        "enable_http_compression",
        "http_zlib_compression_level",
        "send_progress_in_http_headers",
        "http_headers_progress_interval_ms",
        "cancel_http_readonly_queries_on_client_close",
        "add_http_cors_header",
    ]
)


@dataclass(frozen=True)
class Statement:
    """One statement to run. `data` is an INSERT's payload in `format`, else None."""

    text: str
    shape: sql.Shape
    data: bytes | None
    format: str
    query_id: str
    database: str | None = None
    session_id: str | None = None
    session_timeout_s: int = SESSION_TIMEOUT_S
    session_check: bool = False
    read_only: bool = False
    wait_end: bool = False
    settings: dict[str, str] = field(default_factory=dict)
    parameters: dict[str, str] = field(default_factory=dict)


def _flag(options: Mapping[str, str], name: str) -> bool:
    return options.get(name, "0").lower() in ("1", "true")


def build(
    options: Mapping[str, str], body: bytes, *, read_only: bool, default_format: str | None
) -> Statement | None:
    """The statement of a request, None when it holds none. Raises ClickHouseError.

    Args:
        options: URL and form parameters, one value each.
        body: The decoded body: the statement, its data, or its second half.
        read_only: The request may not change anything (GET).
        default_format: From the X-ClickHouse-Format header; the URL parameter goes first.
    """
    for name in ("compress", "decompress"):
        if _flag(options, name):
            raise ClickHouseError.of(
                NOT_IMPLEMENTED,
                "NOT_IMPLEMENTED",
                f"{name}=1 (native block compression) is not available; use Content-Encoding",
            )
    head = options.get("query", "").encode()
    joined = head + b"\n" + body if head and body else head or body
    if not joined.strip():
        return None
    try:
        shape = sql.scan(joined)
    except sql.MultipleStatementsError:
        raise ClickHouseError.of(
            SYNTAX_ERROR, "SYNTAX_ERROR", "Multi-statements are not allowed"
        ) from None
    if shape.touches_files:
        raise ClickHouseError.of(
            OUTFILE_NOT_ALLOWED, "INTO_OUTFILE_NOT_ALLOWED", "INTO OUTFILE is not allowed"
        )
    text, data = _split(joined, shape, len(head), body)
    fallback = options.get("default_format") or default_format
    if fallback is None:
        fallback = "TabSeparated" if data is None else "Values"
    return Statement(
        text=text,
        shape=shape,
        data=data,
        format=shape.format or fallback,
        query_id=options.get("query_id") or str(uuid.uuid4()),
        database=options.get("database") or None,
        session_id=options.get("session_id") or None,
        session_timeout_s=_timeout(options.get("session_timeout")),
        session_check=_flag(options, "session_check"),
        read_only=read_only,
        wait_end=_flag(options, "wait_end_of_query"),
        settings=_settings(options),
        parameters={
            name.removeprefix("param_"): value
            for name, value in options.items()
            if name.startswith("param_")
        },
    )


def _split(
    joined: bytes, shape: sql.Shape, head_length: int, body: bytes
) -> tuple[str, bytes | None]:
    """The statement's text, and the data where it is an INSERT that takes them."""
    if not shape.takes_data:
        return _text(joined), None
    if shape.format is not None:
        return _text(joined[: shape.head_end]), joined[shape.data_begin :]
    # No FORMAT clause: the URL's part is the statement, the body its data.
    if head_length and body:
        return _text(joined[:head_length]), body
    return _text(joined), b""


def _text(part: bytes) -> str:
    try:
        return part.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ClickHouseError.of(
            SYNTAX_ERROR, "SYNTAX_ERROR", f"The statement is not valid UTF-8: {error}"
        ) from error


def _timeout(value: str | None) -> int:
    try:
        return min(max(1, int(value)), SESSION_TIMEOUT_S_MAX) if value else SESSION_TIMEOUT_S
    except ValueError:
        return SESSION_TIMEOUT_S


def _settings(options: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in options.items():
        if name in RESERVED or name.startswith("param_"):
            continue
        if not _SETTING.match(name):
            raise ClickHouseError.of(
                UNKNOWN_SETTING, "UNKNOWN_SETTING", f"Unknown setting '{name}'"
            )
        found[name] = value
    return found
