"""RouterLogits as Avro bytes, written by hand in segments that are cached where they repeat.

The general encoder walks all 37 fields for every chunk. Here what one session, one shape and one
moment contribute are three byte strings, joined around the packed logits. The tests hold the result
byte-equal to fastavro's for every combination of fields; fastavro stays the reference.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

from routekeel.schemas.codec import header
from routekeel.schemas.records.router_logits import ENCODING, PHASE, PROBE_FIELDS

PHASES: dict[str, bytes] = {
    symbol: bytes([2 * index]) for index, symbol in enumerate(PHASE.symbols)
}
ENCODINGS: dict[str, int] = {symbol: index for index, symbol in enumerate(ENCODING.symbols)}
NULL = b"\x00"
PRESENT = b"\x02"
_DOUBLE = struct.Struct("<d")
_FLOAT = struct.Struct("<f")
_SMALL_MAX = 8192


def _long(value: int) -> bytes:
    return _unsigned((value << 1) ^ (value >> 63))


def _unsigned(rest: int) -> bytes:
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


_SMALL = tuple(_long(value) for value in range(_SMALL_MAX))


def long(value: int) -> bytes:
    """An Avro int or long: zigzag, then seven bits a byte, the lowest first.

    >>> long(0).hex(), long(-1).hex(), long(64).hex()
    ('00', '01', '8001')
    """
    return _SMALL[value] if 0 <= value < _SMALL_MAX else _long(value)


class Times:
    """Times as Avro longs. All but the lowest four bytes change every two minutes: they are kept.

    >>> Times().encode(1_700_000_000_000_000) == long(1_700_000_000_000_000)
    True
    """

    __slots__ = ("_upper",)

    def __init__(self) -> None:
        self._upper = (0, b"")

    def encode(self, value: int) -> bytes:
        """The bytes of one time, µs since 1970. Safe to call from several threads."""
        z = value << 1
        rest = z >> 28
        if rest <= 0:
            return _long(value)
        upper = self._upper
        if upper[0] != rest:
            # As one value, so that another thread never sees half of it.
            upper = self._upper = (rest, _unsigned(rest))
        return (
            bytes((z & 127 | 128, z >> 7 & 127 | 128, z >> 14 & 127 | 128, z >> 21 & 127 | 128))
            + upper[1]
        )


def text(value: str) -> bytes:
    """An Avro string. Raises UnicodeEncodeError for a lone surrogate."""
    data = value.encode()
    return long(len(data)) + data


def blob(value: bytes) -> bytes:
    """Avro bytes."""
    return long(len(value)) + value


def ints(values: Sequence[int]) -> bytes:
    """An Avro array of int, in one block."""
    if not values:
        return NULL
    return long(len(values)) + b"".join([long(value) for value in values]) + NULL


def head(
    schema_id: int,
    session_id: str,
    request_id: str,
    model: str,
    model_revision: str,
    backend: str,
    worker_id: str,
    producer_epoch: int,
) -> bytes:
    """The framing and the fields up to producer_epoch: the same for every chunk of a request."""
    names = (session_id, request_id, model, model_revision, backend, worker_id)
    return header(schema_id) + b"".join([text(name) for name in names]) + long(producer_epoch)


def layout(
    shape: tuple[int, ...],
    layers: Sequence[int],
    ranks: Sequence[int],
    top_k: int,
    router_kind: str,
    encoding: str,
    top_m: int,
    logits_bytes: int,
) -> bytes:
    """The fields from `steps` to the length of `logits`: the same for every chunk of a shape."""
    return b"".join(
        (
            long(shape[0]),
            ints(layers),
            *(long(rank) for rank in ranks),
            long(shape[2]),
            long(top_k),
            text(router_kind),
            long(ENCODINGS[encoding]),
            long(top_m),
            long(logits_bytes),
        )
    )


def tail(fields: Mapping[str, Any]) -> bytes:
    """The nullable fields from token_ids to applied_policy_version; absent ones are null.

    Matrices come as bytes, the probe as a mapping of Avro values, numbers and text as such.
    """
    out = bytearray()
    for name, write in _OPTIONAL:
        value = fields.get(name)
        if value is None:
            out += NULL
        else:
            out += PRESENT
            out += write(value)
    return bytes(out)


def _probe(probe: Mapping[str, Any]) -> bytes:
    out = bytearray()
    for field in PROBE_FIELDS:
        value = probe.get(field.name)
        if field.nullable:
            out += NULL if value is None else PRESENT + blob(value)
        else:
            out += _PROBE_WRITERS[field.name](value)
    return bytes(out)


_PROBE_WRITERS: dict[str, Any] = {
    "step": long,
    "layers": ints,
    "epsilon": _FLOAT.pack,
    "basis_id": text,
    "directions": long,
    "dx_norm": blob,
    "dw_norm": blob,
    "dy_norm": blob,
}
_OPTIONAL: tuple[tuple[str, Any], ...] = (
    ("token_ids", blob),
    ("token_entropy", blob),
    ("vocabulary_size", long),
    ("ambiguity_predictive", blob),
    ("ambiguity_paraphrase", blob),
    ("ambiguity_specification", blob),
    ("probe", _probe),
    ("flip_distance", blob),
    ("latency_us", long),
    ("success", lambda value: b"\x01" if value else b"\x00"),
    ("judge_score", _DOUBLE.pack),
    ("task_type", text),
    ("applied_policy_version", long),
)
NO_OPTIONAL = NULL * len(_OPTIONAL)
