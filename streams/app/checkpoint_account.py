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

IDLE_S: Final = 1.0
"""Without a batch for this long, nothing more is coming. Sessions that an engine serves in lockstep pause
between two tokens, too, and that must not make a checkpoint of every token.
"""


@dataclass(slots=True)
class CheckpointAccount:
    """What a partition has read since its last checkpoint. Times by the worker's clock, in seconds."""

    checkpointed_at: float
    applied_at: float = 0.0
    input_bytes: int = 0

    def applied(self, input_bytes: int, now: float) -> None:
        """A batch of so many bytes was applied."""
        self.input_bytes += input_bytes
        self.applied_at = now

    def checkpointed(self, now: float) -> None:
        """Everything is durable."""
        self.checkpointed_at, self.input_bytes = now, 0

    def is_due(self, policy: WorkerSettings, dirty_bytes: int, now: float) -> bool:
        """Whether `dirty_bytes` of changed state should be written now."""
        waited = now - self.checkpointed_at
        if dirty_bytes >= policy.checkpoint_bytes_max or waited >= policy.checkpoint_interval_max_s:
            return True
        if waited < policy.checkpoint_interval_s:
            return False
        # With nothing more coming in, waiting would gain nothing.
        is_idle = now - self.applied_at >= IDLE_S
        return is_idle or dirty_bytes <= policy.checkpoint_share_max * self.input_bytes
