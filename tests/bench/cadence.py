"""When a chunk has Weights, and when the state goes with them: the app's default rule, for the peers, too.

A contender that wrote the state more often than the others would be measured by bytes that nobody else
writes, and be slower for it.
"""

from __future__ import annotations

from dataclasses import dataclass

from routekeel.streams.settings import Settings
from routekeel.streams.topology.cadence import crosses


@dataclass(frozen=True)
class Every:
    """Weights every so many tokens of a request, the session's state with them every so many."""

    tokens: int
    state_tokens: int

    @classmethod
    def of(cls, settings: Settings) -> Every:
        """As the settings have it; what follows the state (weights_change) is off by default."""
        return cls(settings.worker.weights_every_tokens, settings.worker.state_every_tokens)

    def due(self, start: int, steps: int, first: bool) -> tuple[bool, bool]:
        """(whether a chunk has Weights, whether the state is in them); both at a session's first.

        >>> every = Every(tokens=2, state_tokens=4)
        >>> [every.due(position, 1, False) for position in range(4)]
        [(False, False), (True, False), (False, False), (True, True)]
        """
        state = first or crosses(start, steps, self.state_tokens)
        return state or crosses(start, steps, self.tokens), state
