"""How large the parts of a RouterLogits record may be: one place for the SDK and for the stream.

The SDK refuses at the source what the stream would refuse. The limits keep whatever one record can
lead to (state, Weights, Telemetry without rows per token) far below what a topic takes.
"""

from __future__ import annotations

from typing import Final

SESSION_ID_BYTES_MAX: Final = 512
TEXT_BYTES_MAX: Final = 1024
"""UTF-8 bytes of request_id, model, model_revision, backend, worker_id and every other text."""
STEPS_MAX: Final = 4096
EXPERTS_MAX: Final = 4096
LAYERS_MAX: Final = 1024
"""Layer ids are 0…LAYERS_MAX − 1, so a session never has more layers, whatever comes in pieces."""
ROUTES_MAX: Final = 131_072
"""(highest layer id + 1) · E. By the highest id and not by L: a session's state has a row for every
layer that ever came, and this way one record's own fields say that it stays below 8 bytes · 131,072
(1 MiB) plus 24 bytes per layer. 61 layers of 384 experts take 23,424."""
VALUES_MAX: Final = 2**23
"""T · L · E: logits of one record once unpacked (32 MiB). TOPM_F16 could name 2,000 times its size."""
POSITION_MAX: Final = 2**62
SEQUENCE_MAX: Final = 2**62
"""Far from where sums of two of them leave 64 bits."""
# ClickHouse's DateTime64 and people's patience both end somewhere: a time outside is a broken clock.
EVENT_TIME_US_MIN: Final = 946_684_800_000_000  # 2000-01-01
EVENT_TIME_US_MAX: Final = 7_258_118_400_000_000  # 2200-01-01


def text_bytes(text: str) -> int:
    """How many bytes a text takes as UTF-8.

    >>> text_bytes("é"), text_bytes("a" * 2000)
    (2, 2000)
    """
    # Called for every text of every record: what is ASCII, as nearly all are, needs no copy.
    return len(text) if text.isascii() else len(text.encode())
