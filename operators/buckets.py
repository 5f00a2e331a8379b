"""A stable share of sessions: which bucket of ten thousand a session falls into.

Sampling and rollout ask this; the answer depends on salt and session alone, on every machine and
in every version, so that a replay draws the same sessions.
"""

from __future__ import annotations

import hashlib
from typing import Final

BUCKETS: Final = 10_000


def bucket(salt: str, session_id: str) -> int:
    """An int in 0 … 9999: blake2b-64 of len(salt), salt and session as UTF-8,
    big-endian, modulo 10,000.

    The length keeps ("ab", "c") and ("a", "bc") apart. Another salt gives an independent draw.

    >>> bucket("rollout-1", "session-42")
    4997
    """
    prefix = salt.encode()
    message = len(prefix).to_bytes(4, "big") + prefix + session_id.encode()
    return int.from_bytes(hashlib.blake2b(message, digest_size=8).digest(), "big") % BUCKETS


def in_share(salt: str, session_id: str, share: float) -> bool:
    """Whether the session is within the first `share` (a float, 0 … 1) of buckets; a ramp only adds.

    >>> in_share("rollout-1", "session-42", 0.0), in_share("rollout-1", "session-42", 1.0)
    (False, True)
    """
    return bucket(salt, session_id) < share * BUCKETS
