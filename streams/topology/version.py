"""When a state was right."""

from __future__ import annotations

from typing import NamedTuple


class Version(NamedTuple):
    """The log's epoch and the source offset."""

    log_epoch: int
    offset: int
