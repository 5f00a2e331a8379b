"""The state of one session as a value, and its bytes in the changelog.

Layout (little-endian): a fixed head, the model and its revision, the layer ids, the producers with
the sequences seen, the open requests with their last position per layer, and last the packed
operator state float32[L, 2E + 6]. The matrix stands last so that a new one is put behind a head that
was encoded earlier.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from routekeel.operators.state import state_width

VERSION = 1
_HEAD = struct.Struct("<BIqqfiHHHHH")
_PRODUCER = struct.Struct("<qqQH")
_REQUEST = struct.Struct("<HBq")
# Where the head's fields are, for the compiled admission (streams/wire), which reads the same bytes.
_HEAD_FIELDS = (
    "version", "log_epoch", "last_offset", "touched_us", "drift", "experts", "layers", "producers",
    "requests", "model", "model_revision",
)  # fmt: skip
HEAD_AT = {
    name: struct.calcsize("<" + "BIqqfiHHHHH"[:index]) for index, name in enumerate(_HEAD_FIELDS)
}
HEAD_SIZE, PRODUCER_SIZE, REQUEST_SIZE = _HEAD.size, _PRODUCER.size, _REQUEST.size

SEQUENCE_WINDOW = 64
"""How many sequence numbers below the highest are remembered one by one, per producer."""

NO_DRIFT = np.float32(0)

F32 = npt.NDArray[np.float32]


@dataclass(slots=True)
class Producer:
    """The sequences seen of one producing process: the highest, and a bit per number below it."""

    worker_id: bytes
    epoch: int
    high: int
    seen: int = 1

    def admit(self, sequence: int) -> tuple[bool, int]:
        """(is this a repeat?, how many numbers were skipped before it); remembers the sequence."""
        ahead = sequence - self.high
        if ahead > 0:
            self.seen = (
                ((self.seen << ahead) | 1) & (2**SEQUENCE_WINDOW - 1)
                if ahead < SEQUENCE_WINDOW
                else 1
            )
            self.high = sequence
            return False, ahead - 1
        if -ahead >= SEQUENCE_WINDOW:
            return False, 0  # too old to know: the positions decide
        bit = 1 << -ahead
        repeat = bool(self.seen & bit)
        self.seen |= bit
        return repeat, 0


@dataclass(slots=True)
class Request:
    """The last applied position of an open request: one for all layers, or one per layer id."""

    request_id: bytes
    position: int
    by_layer: dict[int, int] | None = None


@dataclass(slots=True)
class Session:
    """One conversation's state. `packed` is float32[L, 2E + 6], rows in the order of `layers`.

    `drift` bounds how far ŵ has moved since it was published last (cadence.py).
    """

    model: bytes
    model_revision: bytes
    experts: int
    layers: tuple[int, ...]
    packed: F32
    log_epoch: int = 0
    last_offset: int = -1
    touched_us: int = 0
    drift: np.float32 = NO_DRIFT
    producers: list[Producer] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)

    def head(self) -> bytes:
        """Everything but the matrix, as bytes."""
        parts = [
            _HEAD.pack(
                VERSION,
                self.log_epoch,
                self.last_offset,
                self.touched_us,
                self.drift,
                self.experts,
                len(self.layers),
                len(self.producers),
                len(self.requests),
                len(self.model),
                len(self.model_revision),
            ),
            self.model,
            self.model_revision,
            struct.pack(f"<{len(self.layers)}i", *self.layers),
        ]
        for producer in self.producers:
            parts.append(
                _PRODUCER.pack(
                    producer.epoch, producer.high, producer.seen, len(producer.worker_id)
                )
            )
            parts.append(producer.worker_id)
        for request in self.requests:
            parts.append(
                _REQUEST.pack(
                    len(request.request_id), request.by_layer is not None, request.position
                )
            )
            parts.append(request.request_id)
            if request.by_layer is not None:
                parts.append(
                    struct.pack(
                        f"<{len(self.layers)}q", *(request.by_layer.get(i, -1) for i in self.layers)
                    )
                )
        return b"".join(parts)

    def encode(self) -> bytes:
        """The whole session as bytes."""
        return self.head() + self.packed.tobytes()

    @staticmethod
    def names(data: bytes) -> tuple[bytes, bytes, tuple[int, ...]]:
        """Model, revision and layers of an encoded session, without the rest."""
        n_layers, _, _, m, r = struct.unpack_from("<HHHHH", data, HEAD_AT["layers"])
        middle, end = HEAD_SIZE + m, HEAD_SIZE + m + r
        layers = struct.unpack_from(f"<{n_layers}i", data, end)
        return data[HEAD_SIZE:middle], data[middle:end], layers

    @classmethod
    def decode(cls, data: bytes) -> Session:
        """The inverse of `encode`; `packed` is a read-only view of `data`. ValueError for other bytes."""
        (
            version,
            log_epoch,
            last_offset,
            touched_us,
            drift,
            experts,
            n_layers,
            n_producers,
            n_requests,
            m,
            r,
        ) = _HEAD.unpack_from(data)
        if version != VERSION:
            raise ValueError(
                f"session state of version {version}; this program reads version {VERSION}"
            )
        at = _HEAD.size
        model, at = data[at : at + m], at + m
        revision, at = data[at : at + r], at + r
        layers = struct.unpack_from(f"<{n_layers}i", data, at)
        at += 4 * n_layers
        producers = []
        for _ in range(n_producers):
            epoch, high, seen, length = _PRODUCER.unpack_from(data, at)
            at += _PRODUCER.size
            producers.append(Producer(data[at : at + length], epoch, high, seen))
            at += length
        requests = []
        for _ in range(n_requests):
            length, is_split, position = _REQUEST.unpack_from(data, at)
            at += _REQUEST.size
            request = Request(data[at : at + length], position)
            at += length
            if is_split:
                request.by_layer = dict(
                    zip(layers, struct.unpack_from(f"<{n_layers}q", data, at), strict=True)
                )
                at += 8 * n_layers
            requests.append(request)
        packed = np.frombuffer(data, dtype="<f4", offset=at)
        return cls(
            model,
            revision,
            experts,
            layers,
            packed.reshape(n_layers, state_width(experts)),
            log_epoch,
            last_offset,
            touched_us,
            np.float32(drift),
            producers,
            requests,
        )
