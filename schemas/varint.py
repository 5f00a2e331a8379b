"""Avro's integers and lengths: zig-zag variable-length, by table instead of by loop.

Most numbers of a record fit one or two bytes; a table of the 16,384 two-byte values makes those one
look-up, and a timestamp four.
"""

from __future__ import annotations

from typing import Final

_BITS: Final = 14
_SIZE: Final = 1 << _BITS
_MASK: Final = _SIZE - 1
INT_MAX: Final = 2**31 - 1


def _last(u: int) -> bytes:
    return bytes([u]) if u < 128 else bytes([u & 127 | 128, u >> 7])


# The last one or two bytes of a number, and two bytes that others follow.
_LAST: Final = tuple(_last(u) for u in range(_SIZE))
_MORE: Final = tuple(bytes([u & 127 | 128, u >> 7 | 128]) for u in range(_SIZE))


def encode_long(n: int) -> bytes:
    """A long. Raises OverflowError outside 64 bits, TypeError for what is no integer.

    >>> [encode_long(n).hex() for n in (0, -1, 1, 64, -2**63)]
    ['00', '01', '02', '8001', 'ffffffffffffffffff01']
    """
    n = n.__index__()
    u = n << 1 if n >= 0 else ~(n << 1)
    if u < _SIZE:
        return _LAST[u]
    if u >> 64:
        raise OverflowError(f"{n} does not fit 64 bits")
    out = b""
    while u >= _SIZE:
        out += _MORE[u & _MASK]
        u >>= _BITS
    return out + _LAST[u]


def encode_int(n: int) -> bytes:
    """An int. Raises OverflowError outside 32 bits, TypeError for what is no integer."""
    if not -INT_MAX - 1 <= n <= INT_MAX:
        raise OverflowError(f"{n} does not fit 32 bits")
    return encode_long(n)


class Small(dict[int, bytes]):
    """Encoded numbers by number: the small ones ready, the others computed and not kept."""

    def __init__(self, bits: int) -> None:
        super().__init__((n, encode_long(n)) for n in range(-64, 4096))
        self._encode = encode_int if bits == 32 else encode_long

    def __missing__(self, n: int) -> bytes:
        return self._encode(n)


INTS: Final = Small(32)
LONGS: Final = Small(64)
