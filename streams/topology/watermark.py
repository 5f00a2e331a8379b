"""How far a partition has been applied, of which log, and its event-time clock.

The watermark lives in the changelog beside the sessions, under a key that no session can have.
Contiguity is judged against it (engine.md, rule 6), never against what Faust says it delivered.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

WATERMARK_KEY = b"\x00watermark"
_LAYOUT = struct.Struct("<BIqqq")
_VERSION = 1


class Watermark(NamedTuple):
    """State of one partition that is not any session's.

    `log_epoch` counts the logs this partition has had: it grows when the topic was recreated, so that
    offsets of the old log in a session's state are not taken for offsets of the new one.
    `applied_offset` is -1 before the first record; `clock_us` is the event-time clock, which only
    moves forward; `lost_to_retention` counts offsets that retention removed before they were read.
    """

    topic_id: str
    log_epoch: int = 0
    applied_offset: int = -1
    clock_us: int = 0
    lost_to_retention: int = 0

    def encode(self) -> bytes:
        """The watermark as bytes."""
        head = _LAYOUT.pack(
            _VERSION, self.log_epoch, self.applied_offset, self.clock_us, self.lost_to_retention
        )
        return head + self.topic_id.encode()

    @classmethod
    def decode(cls, data: bytes) -> Watermark:
        """The inverse of `encode`. Raises ValueError for bytes of another version."""
        version, log_epoch, applied_offset, clock_us, lost = _LAYOUT.unpack_from(data)
        if version != _VERSION:
            raise ValueError(
                f"watermark of version {version}; this program reads version {_VERSION}"
            )
        return cls(bytes(data[_LAYOUT.size :]).decode(), log_epoch, applied_offset, clock_us, lost)

    def of_log(self, topic_id: str) -> Watermark:
        """This watermark, or a fresh one at the start of a new log when the topic was recreated."""
        if topic_id == self.topic_id:
            return self
        return self._replace(topic_id=topic_id, log_epoch=self.log_epoch + 1, applied_offset=-1)
