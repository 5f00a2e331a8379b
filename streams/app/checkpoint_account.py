"""When a partition's changes go to the state log.

A real model's session is 50 KB of state and a chunk 12 KB: written after every batch, the state log
would outweigh the input. Input is kept and the operators are deterministic, so a checkpoint may wait:
what was applied since the last one comes out again, with the same ids, after a crash. It waits until
it is small beside the input since then, but not for ever.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from routekeel.streams.settings.tree import WorkerSettings

IDLE_S: Final = 0.25
IDLE_S_MAX: Final = 2.0
"""Without a batch for this long, at least and at most, a partition has caught up for the time being."""
PAUSES: Final = 4
"""In between, so many of the longest pause since the last checkpoint: sessions that an engine serves in lockstep
pause between two tokens, and that must not make a checkpoint of every token.
"""


@dataclass(slots=True)
class CheckpointAccount:
    """What a partition has read since its last checkpoint. Times by the worker's clock, in seconds."""

    checkpointed_at: float
    applied_at: float | None = None
    longest_pause_s: float = 0.0
    input_bytes: int = 0

    def applied(self, input_bytes: int, now: float) -> None:
        """A batch of so many bytes was applied."""
        if self.applied_at is not None:
            self.longest_pause_s = max(self.longest_pause_s, now - self.applied_at)
        self.input_bytes += input_bytes
        self.applied_at = now

    def checkpointed(self, now: float) -> None:
        """Everything is durable."""
        self.checkpointed_at, self.input_bytes, self.longest_pause_s = now, 0, 0.0

    def is_due(self, policy: WorkerSettings, dirty_bytes: int, now: float) -> bool:
        """Whether `dirty_bytes` of changed state should be written now."""
        waited = now - self.checkpointed_at
        if dirty_bytes >= policy.checkpoint_bytes_max or waited >= policy.checkpoint_interval_max_s:
            return True
        if waited < policy.checkpoint_interval_s:
            return False
        # With nothing more coming in, waiting would gain nothing.
        return self._is_idle(now) or dirty_bytes <= policy.checkpoint_share_max * self.input_bytes

    def _is_idle(self, now: float) -> bool:
        quiet_s = now - (self.applied_at or 0.0)
        return quiet_s >= min(IDLE_S_MAX, max(IDLE_S, PAUSES * self.longest_pause_s))
