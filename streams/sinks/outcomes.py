"""What a store's answer means for a batch: whose fault it is, and what to do about it.

Only errors that are known to be about the rows condemn rows. Everything else, known or not, is
tried again: nothing is ever dropped because a server was unwell.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from routekeel.streams.sinks.dedupe import LetterKey


class Fault(Enum):
    """Whose fault a refusal is."""

    DATA = "the rows are wrong"
    SIZE = "the batch is too large for the server"
    SERVICE = "the server cannot do it now"


# ClickHouse's error codes (src/Common/ErrorCodes.cpp) that say that the values are wrong.
DATA_CODES: Final = frozenset(
    {
        6,  # CANNOT_PARSE_TEXT
        26,  # CANNOT_PARSE_QUOTED_STRING
        27,  # CANNOT_PARSE_INPUT_ASSERTION_FAILED
        33,  # CANNOT_READ_ALL_DATA
        38,  # CANNOT_PARSE_DATE
        41,  # CANNOT_PARSE_DATETIME
        69,  # ARGUMENT_OUT_OF_BOUND
        70,  # CANNOT_CONVERT_TYPE
        72,  # CANNOT_PARSE_NUMBER
        117,  # INCORRECT_DATA
        128,  # TOO_LARGE_ARRAY_SIZE
        131,  # TOO_LARGE_STRING_SIZE
        190,  # SIZES_OF_ARRAYS_DONT_MATCH
        321,  # VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
        349,  # CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
        376,  # CANNOT_PARSE_UUID
        407,  # DECIMAL_OVERFLOW
        469,  # VIOLATED_CONSTRAINT
    }
)
# MEMORY_LIMIT_EXCEEDED: the same rows may pass in two inserts.
SIZE_CODES: Final = frozenset({241})


def fault_of(code: int | None) -> Fault:
    """Whose fault an error with this code is; an unknown one is the service's.

    >>> fault_of(469).name, fault_of(60).name, fault_of(None).name
    ('DATA', 'SERVICE', 'SERVICE')
    """
    if code in DATA_CODES:
        return Fault.DATA
    return Fault.SIZE if code in SIZE_CODES else Fault.SERVICE


@dataclass(frozen=True, slots=True)
class Done:
    """It is done."""


@dataclass(frozen=True, slots=True)
class Absent:
    """The table does not have the rows that were asked for."""


@dataclass(frozen=True, slots=True)
class Found:
    """The dead letters that the table has already."""

    keys: frozenset[LetterKey]


@dataclass(frozen=True, slots=True)
class RefusedByStore:
    """The store answered, definitively, that it does not take this insert."""

    fault: Fault
    message: str


@dataclass(frozen=True, slots=True)
class Failed:
    """It did not work, now; `unknown` where it may have been done all the same."""

    message: str
    unknown: bool = False


@dataclass(frozen=True, slots=True)
class Recreated:
    """The log is not the one that the batch was read from any more."""

    message: str


Outcome = Done | Absent | Found | RefusedByStore | Failed | Recreated
