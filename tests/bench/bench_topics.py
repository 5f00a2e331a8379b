"""The topics of one run of one contender: made before it, verified after it, removed when done.

A contender that lost, repeated or miscomputed anything must not win by it: every run has to leave
exactly as many records as the events call for, and the first run of each the same numbers in them
(samples.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from routekeel.streams.log_bounds import log_bounds
from routekeel.streams.settings import Settings, load_settings
from routekeel.streams.topics import admin_client, ensure_topics


@dataclass(frozen=True)
class RunTopics:
    """Names that begin with the run's tag, but for the events, which all runs of a case share."""

    tag: str
    settings: Settings
    flags: dict[str, Any]

    @classmethod
    def make(cls, state_dir: Any, tag: str, source: str, **more: Any) -> RunTopics:
        """Create the topics. `more` are further settings, dots written as two underscores."""
        flags = {
            "stack.state_dir": str(state_dir),
            "topics.logits": source,
            "topics.telemetry": f"{tag}.telemetry",
            "topics.weights": f"{tag}.weights",
            "topics.dlq": f"{tag}.dlq",
            "worker.app_id": tag,
        } | {name.replace("__", "."): value for name, value in more.items()}
        settings = load_settings(flags=flags).settings
        ensure_topics(settings)
        return cls(tag, settings, flags)

    def environment(self) -> dict[str, str]:
        """Variables that give a process of its own the same settings."""
        made = {
            f"ROUTEKEEL_{name.upper().replace('.', '__')}": str(value)
            for name, value in self.flags.items()
        }
        return {**os.environ, **made}

    def ends(self, topic: str) -> int:
        """How many records a topic has been given."""
        keys = [(topic, partition) for partition in range(self.settings.topics.partitions)]
        return sum(end for _, end in log_bounds(self.settings, keys).values())

    def verify(self, name: str, telemetry: int, weights: int) -> None:
        """Raises SystemExit unless exactly so many records were written, and none refused."""
        topics = self.settings.topics
        want = {topics.telemetry: telemetry, topics.weights: weights, topics.dlq: 0}
        have = {topic: self.ends(topic) for topic in want}
        if have != want:
            raise SystemExit(
                f"{name} does not count: it wrote {have}, the events call for {want}; nothing was measured"
            )

    def remove(self, names: Iterable[str] = ()) -> None:
        """Delete every topic of this run, the contender's own state logs included, and `names`."""
        admin = admin_client(self.settings)
        all_names = admin.list_topics(timeout=15).topics
        mine = sorted({name for name in all_names if self.tag in name} | set(names))
        for future in admin.delete_topics(mine, operation_timeout=30).values() if mine else ():
            future.result()
