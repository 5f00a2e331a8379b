"""From where a log partition is read after an assignment: the table decides, the group helps.

The table alone would do: what it has is stored, what it lacks is read again. But records at the end
that left no rows (repeats, dead letters) would be handled again at every start, so the group's
commit carries how far the table was when it was made. A table that has at least that much confirms
the commit; one that has less was dropped or restored, and is filled again from the log.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_MARK: Final = "v1"
METADATA_CHARS_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class Committed:
    """A partition's commit: the next offset, in which log, and the largest one its table had."""

    offset: int
    topic_id: str
    stored: int

    def metadata(self) -> str:
        """The text kept beside the offset.

        >>> Committed(8, "id", 6).metadata()
        'v1 id 6'
        """
        return f"{_MARK} {self.topic_id} {self.stored}"


def parse_committed(offset: int, metadata: str | None) -> Committed | None:
    """The commit that a broker returned; None where there is none or it is not the sink's.

    >>> parse_committed(8, "v1 id 6")
    Committed(offset=8, topic_id='id', stored=6)
    >>> parse_committed(-1001, "") is None, parse_committed(8, "by hand") is None
    (True, True)
    """
    parts = (metadata or "").split(" ")
    if offset < 0 or len(parts) != 3 or parts[0] != _MARK:
        return None
    try:
        return Committed(offset, parts[1], int(parts[2]))
    except ValueError:
        return None


def resume_offset(topic_id: str, stored: int, committed: Committed | None) -> int:
    """The offset to read next, given the largest one stored under this topic id (−1: none).

    >>> resume_offset("id", 6, None)
    7
    >>> resume_offset("id", 6, Committed(9, "id", 6))
    9
    >>> resume_offset("id", 3, Committed(9, "id", 6))  # the table lost rows
    4
    >>> resume_offset("new", -1, Committed(9, "id", 6))  # the topic was recreated
    0
    """
    if committed is None or committed.topic_id != topic_id or committed.stored > stored:
        return stored + 1
    return max(stored + 1, committed.offset)
