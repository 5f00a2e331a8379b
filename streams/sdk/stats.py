"""What a producer has counted so far, as one consistent value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProducerStats:
    """Counts since the producer was made (in a forked child: since the fork).

    `emitted` chunks were handed to emit_logits; each was `accepted` or dropped. Each accepted one
    is `delivered`, failed (dropped as delivery_failed) or `in_flight`:
    emitted == delivered + dropped_total + in_flight. Bytes count the encoded record and a fixed
    overhead per message; `in_flight_bytes` never exceeds `buffer_bytes`.
    """

    emitted: int
    accepted: int
    delivered: int
    in_flight: int
    accepted_bytes: int
    in_flight_bytes: int
    buffer_bytes: int
    dropped: Mapping[str, int]
    sessions: int
    sessions_evicted: int

    @property
    def dropped_total(self) -> int:
        """Chunks that were not sent or not delivered, for any reason."""
        return sum(self.dropped.values())
