"""The little that the gateway must know about a statement's text: its kind and its formats.

A scan over tokens, not a parser: quoted texts, comments and parentheses are stepped over, and in
an INSERT it ends where the data begin, so that binary data are never looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(
    rb"""
    (?P<skip>  \s+ | --[^\n]* | \#![^\n]* | /\*.*?\*/ )
  | (?P<quoted> '(?:[^'\\]|\\.|'')*' | "(?:[^"\\]|\\.|"")*" | `(?:[^`\\]|\\.|``)*` )
  | (?P<word>  [A-Za-z_][A-Za-z0-9_]* )
  | (?P<number> [0-9][A-Za-z0-9_.]* )
  | (?P<mark>  . )
    """,
    re.VERBOSE | re.DOTALL,
)
_AFTER_FORMAT = re.compile(rb"[ \t\f]*;?[ \t\f]*(?:\r?\n)?")
_AFTER_OUTPUT = frozenset({b"SETTINGS", b"INTO", b"OUTFILE"})
_DATA_BEGINS = frozenset({b"SELECT", b"WITH", b"VALUES", b"WATCH"})


class MultipleStatementsError(ValueError):
    """The text holds more than one statement."""


@dataclass(frozen=True)
class Shape:
    """What a statement's text looks like from outside.

    Attributes:
        first: Its first word in capitals, '' when there is none.
        words: Every word outside parentheses and quotes, in capitals.
        format: The name after its last FORMAT, None when there is none.
        head_end: Where the statement itself ends: before FORMAT in an INSERT with data.
        data_begin: Where an INSERT's own data begin; the text's length when there are none.
    """

    first: str
    words: frozenset[str]
    format: str | None
    head_end: int
    data_begin: int

    @property
    def takes_data(self) -> bool:
        """An INSERT whose rows come in a format, not from a query or a VALUES list."""
        return self.first == "INSERT" and not self.words & {"SELECT", "WITH", "VALUES", "WATCH"}

    @property
    def changes_session(self) -> bool:
        """SET, USE and temporary objects live on in their session."""
        return self.first in ("SET", "USE") or "TEMPORARY" in self.words

    @property
    def touches_files(self) -> bool:
        """INTO OUTFILE and FROM INFILE are the command-line client's, never a server's."""
        return bool(self.words & {"OUTFILE", "INFILE"})


def scan(text: bytes) -> Shape:
    """Look over a statement. Raises MultipleStatementsError.

    >>> shape = scan(b"INSERT INTO t (a) FORMAT CSV\\n1")
    >>> shape.takes_data, shape.format, shape.data_begin
    (True, 'CSV', 29)
    """
    words: list[bytes] = []
    format_name: str | None = None
    format_at = -1  # where a FORMAT stands whose name may follow
    ended = False
    for kind, value, start, end in _top_level(text):
        if value == b";":
            ended, format_at = True, -1
            continue
        if ended:
            raise MultipleStatementsError
        upper = value.upper() if kind == "word" else b""
        if format_at >= 0 and kind == "word":
            format_name = value.decode("ascii")
            if words[0] == b"INSERT":
                after = _AFTER_FORMAT.match(text, end)
                return _shape(words, format_name, format_at, after.end() if after else end)
            format_at = -1
            continue
        format_at = start if upper == b"FORMAT" and words else -1
        if format_at >= 0:
            continue
        if format_name is not None and upper not in _AFTER_OUTPUT and b"SETTINGS" not in words:
            format_name = None  # a column of that name: a clause stands at the end
        if kind == "word":
            words.append(upper)
            if words[0] == b"INSERT" and upper in _DATA_BEGINS:
                break
    return _shape(words, format_name, len(text), len(text))


def _top_level(text: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    """The tokens outside comments and parentheses, as (kind, value, start, end)."""
    depth, position = 0, 0
    while position < len(text):
        token = _TOKEN.match(text, position)
        assert token is not None  # the last alternative takes any character
        kind, start, position = token.lastgroup or "", position, token.end()
        if kind == "mark":
            depth += (token[0] in b"([{") - (token[0] in b")]}")
        if kind != "skip" and (depth == 0 or kind == "mark"):
            yield kind, token[0], start, position


def _shape(words: list[bytes], format_name: str | None, head_end: int, begin: int) -> Shape:
    first = words[0].decode("ascii") if words else ""
    return Shape(first, frozenset(w.decode("ascii") for w in words), format_name, head_end, begin)


def quoted(value: str) -> str:
    """The value as a ClickHouse string literal.

    >>> print(quoted("it's"))
    'it\\'s'
    """
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def identifier(name: str) -> str:
    """The name as a quoted ClickHouse identifier."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"
