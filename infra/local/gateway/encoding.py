"""Content encodings of request and reply bodies: what clients of ClickHouse send and accept.

Request bodies may be several frames one after another (clients compress block by block); replies
are one frame flushed chunk by chunk, which every streaming decoder understands.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from typing import Protocol

import cramjam

from routekeel.infra.local.gateway.replies import NOT_IMPLEMENTED, ClickHouseError

OFFERED = ("lz4", "zstd", "gzip", "deflate", "br")  # cheapest first
_GZIP_WINDOW = 31
_FAST = 1


class Encoder(Protocol):
    """Turns a reply's chunks into an encoded stream."""

    def add(self, chunk: bytes | memoryview) -> bytes:
        """The bytes to send for this chunk."""

    def end(self) -> bytes:
        """The last bytes."""


class _Deflater:
    def __init__(self, window: int) -> None:
        self._stream = zlib.compressobj(_FAST, zlib.DEFLATED, window)

    def add(self, chunk: bytes | memoryview) -> bytes:
        return self._stream.compress(chunk) + self._stream.flush(zlib.Z_SYNC_FLUSH)

    def end(self) -> bytes:
        return self._stream.flush()


class _Framer:
    def __init__(self, compressor: object) -> None:
        self._stream = compressor

    def add(self, chunk: bytes | memoryview) -> bytes:
        self._stream.compress(bytes(chunk))  # type: ignore[attr-defined]
        return bytes(self._stream.flush())  # type: ignore[attr-defined]

    def end(self) -> bytes:
        return bytes(self._stream.finish())  # type: ignore[attr-defined]


_ENCODERS: dict[str, Callable[[], Encoder]] = {
    "lz4": lambda: _Framer(cramjam.lz4.Compressor()),
    "zstd": lambda: _Framer(cramjam.zstd.Compressor()),
    "br": lambda: _Framer(cramjam.brotli.Compressor(_FAST)),
    "gzip": lambda: _Deflater(_GZIP_WINDOW),
    "deflate": lambda: _Deflater(zlib.MAX_WBITS),
}
_DECODERS: dict[str, Callable[[bytes], bytes]] = {
    "lz4": lambda data: bytes(cramjam.lz4.decompress(data)),
    "zstd": lambda data: bytes(cramjam.zstd.decompress(data)),
    "br": lambda data: bytes(cramjam.brotli.decompress(data)),
    "gzip": gzip.decompress,
    "deflate": zlib.decompress,
}


def decode(body: bytes, encoding: str) -> bytes:
    """The request's body decoded. Raises ClickHouseError for what is unknown or damaged."""
    name = encoding.strip().lower()
    if name in ("", "identity") or not body:
        return body
    decoder = _DECODERS.get(name)
    if decoder is None:
        raise ClickHouseError.of(
            NOT_IMPLEMENTED, "NOT_IMPLEMENTED", f"Unknown Content-Encoding '{name}'"
        )
    try:
        return decoder(body)
    except Exception as error:
        raise ClickHouseError.of(
            354, "CANNOT_DECOMPRESS", f"The body is no valid {name}: {error}"
        ) from error


def choose(accept: str) -> str | None:
    """The encoding to use for a reply, None for plain.

    >>> choose("gzip, lz4;q=0.5"), choose("identity"), choose("")
    ('lz4', None, None)
    """
    wanted = {part.split(";")[0].strip().lower() for part in accept.split(",")}
    return next((name for name in OFFERED if name in wanted), None)


def encoder(name: str) -> Encoder:
    """A fresh encoder of one of the offered names."""
    return _ENCODERS[name]()
