"""State of one session: per layer one packed float32 row, kept as a plain frozen value.

The same rows, stacked, are the arena that `step_many` works on; counters are small integers,
exact in float32, so that a snapshot is the bytes themselves.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]

# Scalars behind ŵ[E] and z_prev[E] in a packed row, in this order.
SCALARS = ("integral", "u_prev", "spike_run", "hold_left", "seen", "winner")
INTEGRAL, U_PREV, SPIKE_RUN, HOLD_LEFT, SEEN, WINNER = range(6)
E_MAX = 4096
_HEADER = struct.Struct("<4sHHI")
_MAGIC = b"RKS1"


def state_width(E: int) -> int:
    """Floats in one packed row, an int ≥ 8: ŵ, the last applied logits, and six scalars.

    >>> state_width(8)
    22
    """
    if not 1 <= E <= E_MAX:
        raise ValueError(f"experts must be in [1, {E_MAX}], got {E}")
    return 2 * E + len(SCALARS)


def initial_rows(slots: int, E: int) -> F32:
    """float32[slots, state_width(E)], rows before any token: all zero (`seen` = 0 makes the rest unread)."""
    return np.zeros((slots, state_width(E)), dtype=np.float32)


@dataclass(frozen=True, eq=False)
class RouterState:
    """Packed float32[L, state_width(E)] with named read-only views.

    w_hat [L, E]: the smoothed route after the last applied token, sums to 1; zeros before it.
    z_prev [L, E]: that token's logits, for the secant and the flip of the base route.
    integral, u_prev [L]: PI integral and last PI output, in units of G and 1.
    spike_run, hold_left [L]: guard counters, whole numbers.
    seen [L]: 0 before the first applied token, then 1.
    winner [L]: index of the route's winner after hysteresis.
    Two states are equal when their bytes are.

    >>> state = RouterState.initial(2, 4)
    >>> RouterState.from_bytes(state.to_bytes()) == state
    True
    """

    packed: F32

    def __post_init__(self) -> None:
        packed = np.ascontiguousarray(self.packed, dtype=np.float32)
        if packed.ndim != 2 or packed.shape[1] < 8 or packed.shape[1] % 2:
            raise ValueError(f"state must be [L, 2E+6], got {packed.shape}")
        packed = packed.view()
        packed.setflags(write=False)
        object.__setattr__(self, "packed", packed)

    @classmethod
    def initial(cls, L: int, E: int) -> RouterState:
        """The state of L layers of E experts before any token."""
        return cls(initial_rows(L, E))

    @property
    def layers(self) -> int:
        return int(self.packed.shape[0])

    @property
    def experts(self) -> int:
        return (int(self.packed.shape[1]) - len(SCALARS)) // 2

    @property
    def w_hat(self) -> F32:
        return self.packed[:, : self.experts]

    @property
    def z_prev(self) -> F32:
        return self.packed[:, self.experts : 2 * self.experts]

    def _scalar(self, index: int) -> F32:
        return self.packed[:, 2 * self.experts + index]

    @property
    def integral(self) -> F32:
        return self._scalar(INTEGRAL)

    @property
    def u_prev(self) -> F32:
        return self._scalar(U_PREV)

    @property
    def spike_run(self) -> F32:
        return self._scalar(SPIKE_RUN)

    @property
    def hold_left(self) -> F32:
        return self._scalar(HOLD_LEFT)

    @property
    def seen(self) -> F32:
        return self._scalar(SEEN)

    @property
    def winner(self) -> F32:
        return self._scalar(WINNER)

    def to_bytes(self) -> bytes:
        """Header (magic, L, reserved, E) and the packed rows, little-endian float32."""
        header = _HEADER.pack(_MAGIC, self.layers, 0, self.experts)
        return header + self.packed.astype("<f4", copy=False).tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> RouterState:
        """The inverse of to_bytes. Raises ValueError on a wrong header or length."""
        if len(data) < _HEADER.size or data[:4] != _MAGIC:
            raise ValueError("not a router state: bad header")
        _, layers, _, experts = _HEADER.unpack_from(data)
        body = np.frombuffer(data, dtype="<f4", offset=_HEADER.size)
        if body.size != layers * state_width(experts):
            raise ValueError(f"router state of {layers} x {experts} has {body.size} floats")
        return cls(body.reshape(layers, state_width(experts)).astype(np.float32))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RouterState):
            return NotImplemented
        same_shape = self.packed.shape == other.packed.shape
        return same_shape and self.packed.tobytes() == other.packed.tobytes()

    def __hash__(self) -> int:
        return hash((self.packed.shape, self.packed.tobytes()))
