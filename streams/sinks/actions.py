"""What a batch may want done on its way into the tables (work.py says when), as values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from routekeel.schemas.tables import Table
from routekeel.streams.sinks.block import Block
from routekeel.streams.sinks.dedupe import LetterKey
from routekeel.streams.topology.records import DeadLetter, Source


@dataclass(frozen=True, slots=True)
class Payload:
    """The rows of one insert, encoded."""

    data: bytes
    rows: int


BuildPayload = Callable[[Table, Block, Source], Payload]
"""Encodes the rows of records. Raises BadRow with the index of one that does not fit."""


@dataclass(frozen=True, slots=True)
class VerifyLog:
    """Make sure that the source's topic still had its id at some time after `read_at`."""

    source: Source
    read_at: float


@dataclass(frozen=True, slots=True)
class SendLetters:
    """Publish dead letters and wait until they are durable."""

    source: Source
    letters: tuple[DeadLetter, ...]


@dataclass(frozen=True, slots=True)
class FindLetters:
    """Ask the dead letters' table which of these it has."""

    keys: tuple[LetterKey, ...]


@dataclass(frozen=True, slots=True)
class Insert:
    """Insert rows under a token; `last` is the log offset of the last one."""

    table: Table
    token: str
    payload: Payload
    source: Source
    last: int


@dataclass(frozen=True, slots=True)
class FindRows:
    """Ask the table whether an insert whose outcome is unknown was done; not before it is sure to be over."""

    insert: Insert


Action = VerifyLog | SendLetters | FindLetters | Insert | FindRows
