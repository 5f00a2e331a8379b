"""How large a record of the worker can become, from the shape of what led to it.

A record that is larger than its topic takes is refused by the client and would end the worker at the
same place for ever; so it must be known before it is made. The tests hold the bounds to real records.
"""

from __future__ import annotations

from typing import Final

from routekeel.schemas.limits import LAYERS_MAX, ROUTES_MAX, TEXT_BYTES_MAX
from routekeel.schemas.records.telemetry import LAYER_FIELDS

ENVELOPE_BYTES: Final = 32 * 1024
"""More than the texts (at most eleven), the numbers and Kafka's own header take."""
TOKEN_ROW_BYTES: Final = 6 * 4 + 3
"""Six float columns and three flags per (token, layer), beside the two routes."""
# Per request and producer of a session: the ids, the numbers and a position per layer.
_REQUEST_BYTES: Final = 2 * (TEXT_BYTES_MAX + 32) + 8 * LAYERS_MAX


def telemetry_bytes(steps: int, layers: int, experts: int, *, token_rows: bool) -> int:
    """At most this many bytes has a Telemetry record of T × L × E, with or without rows per token."""
    size = ENVELOPE_BYTES + layers * (4 * len(LAYER_FIELDS) + 8 + 4 * experts)
    if token_rows:
        size += 8 * steps + steps * layers * (TOKEN_ROW_BYTES + 4 * experts)
    return size


def largest_output_bytes(requests_max: int) -> int:
    """At most this many bytes has what a valid chunk leads to, its rows per token left out."""
    state = 8 * ROUTES_MAX + 32 * LAYERS_MAX + requests_max * _REQUEST_BYTES
    weights = ENVELOPE_BYTES + state + 8 * ROUTES_MAX + 16 * LAYERS_MAX
    layers = LAYERS_MAX
    return max(weights, telemetry_bytes(0, layers, ROUTES_MAX // layers, token_rows=False))
