"""How the gateway answers: ClickHouse's error texts, statuses and summary headers.

Clients read the code from a header and the name from the text; both must look as a server's do.
"""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass

EXCEPTION_CODE = "X-ClickHouse-Exception-Code"
EXCEPTION_TAG = "X-ClickHouse-Exception-Tag"
TAG_LENGTH = 16

SYNTAX_ERROR = 62
NOT_IMPLEMENTED = 48
UNKNOWN_SETTING = 115
READONLY = 164
REQUIRED_PASSWORD = 194
TOO_MANY_QUERIES = 202
NOT_ENOUGH_SPACE = 243
UNKNOWN_STATUS_OF_INSERT = 319
QUERY_WAS_CANCELLED = 394
OUTFILE_NOT_ALLOWED = 358
SESSION_NOT_FOUND = 372
SESSION_IS_LOCKED = 373
AUTHENTICATION_FAILED = 516
UNKNOWN_EXCEPTION = 1002

_STATUS = {
    REQUIRED_PASSWORD: 401,
    AUTHENTICATION_FAILED: 403,
    NOT_IMPLEMENTED: 501,
    TOO_MANY_QUERIES: 503,
    159: 408,  # TIMEOUT_EXCEEDED
    **dict.fromkeys((60, 81, 16, 46, 47, 8, 5), 404),  # unknown table, database, column, function
    **dict.fromkeys(
        (
            SYNTAX_ERROR,
            6,
            26,
            27,
            36,
            38,
            41,
            43,
            53,
            69,
            70,
            72,
            115,
            131,
            164,
            372,
            373,
            386,
            456,
        ),
        400,
    ),
}
_CODE = re.compile(r"Code: (\d+)\.")


@dataclass
class ClickHouseError(Exception):
    """An error as a ClickHouse server would report it."""

    code: int
    text: str

    @staticmethod
    def of(code: int, name: str, message: str) -> ClickHouseError:
        """One of the gateway's own."""
        return ClickHouseError(code, f"Code: {code}. DB::Exception: {message} ({name})")

    @staticmethod
    def from_engine(error: BaseException) -> ClickHouseError:
        """The engine's own text, from its 'Code:' on."""
        text = str(error).strip()
        found = _CODE.search(text)
        if found is None:
            return ClickHouseError.of(UNKNOWN_EXCEPTION, "UNKNOWN_EXCEPTION", text or repr(error))
        return ClickHouseError(int(found[1]), text[found.start() :])

    @property
    def status(self) -> int:
        """The HTTP status that a server gives this code."""
        return _STATUS.get(self.code, 500)

    def body(self, version: str) -> bytes:
        """The reply's text."""
        return f"{self.text} (version {version})\n".encode()


@dataclass
class Progress:
    """What a statement has read and written so far."""

    read_rows: int = 0
    read_bytes: int = 0
    written_rows: int = 0
    written_bytes: int = 0
    result_rows: int = 0
    result_bytes: int = 0
    elapsed_ns: int = 0

    def header(self) -> str:
        """The X-ClickHouse-Summary header; numbers are texts there."""
        return json.dumps({name: str(value) for name, value in vars(self).items()})


def new_tag() -> str:
    """A tag that no data will hold by chance."""
    return secrets.token_hex(TAG_LENGTH // 2)


def exception_block(error: ClickHouseError, tag: str, version: str) -> bytes:
    """What follows the data when a query fails after its reply has begun."""
    text = error.body(version)
    return (
        b"__exception__\r\n"
        + tag.encode()
        + b"\r\n"
        + text
        + f"{len(text)} {tag}\r\n__exception__\r\n".encode()
    )
