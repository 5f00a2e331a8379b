"""float32 arithmetic whose every rounding is fixed: exp, log and sums in eight lanes, in NumPy.

libm's exp differs between machines, and a sum's order between vector widths; replay must not.
`kernels_math` does the same operations in the same order on numba's lanes, so both give equal bits.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
f32 = np.float32

LANES: Final = 8
ZERO: Final = f32(0)
ONE: Final = f32(1)
HALF: Final = f32(0.5)
TWO: Final = f32(2)

# Below e^-87 a float32 loses digits; such weights count as 0: they are held at a power whose
# exponent bits are 0.
EXP_MIN: Final = f32(-87)
EXP_OF_0: Final = f32(-88)
EXP_MAX: Final = f32(88)
LOG2_E: Final = f32(1.442695)
# Adding and taking away 1.5·2^23 rounds to the nearest whole number n; with 127 more the sum's last
# bits are the exponent bits of 2^n.
ROUNDER: Final = f32(12582912 + 127)
EXPONENT_AT: Final = np.int32(23)
# ln 2 in two parts: the first has few bits, so that n times it is exact.
LN2_HIGH: Final = f32(0.693359375)
LN2_LOW: Final = f32(-2.12194440e-4)
# (e^r − 1 − r)/r² on |r| ≤ ln(2)/2, minimax of the relative error of e^r: 4e-9.
EXP_2: Final = f32(0.5)
EXP_3: Final = f32(0.16666534543037415)
EXP_4: Final = f32(0.041667237877845764)
EXP_5: Final = f32(0.008367509581148624)
EXP_6: Final = f32(0.001386375748552382)
# (ln(1 + f) − f + f²/2)/f³ on √½ ≤ 1 + f ≤ √2, minimax, error 6e-9.
SQRT_2: Final = f32(1.4142135)
LOG_3: Final = f32(0.33333316445350647)
LOG_4: Final = f32(-0.25000810623168945)
LOG_5: Final = f32(0.2000228613615036)
LOG_6: Final = f32(-0.16624553501605988)
LOG_7: Final = f32(0.14181196689605713)
LOG_8: Final = f32(-0.13128767907619476)
LOG_9: Final = f32(0.12881621718406677)
LOG_10: Final = f32(-0.07859545946121216)


def exp32(x: npt.ArrayLike) -> F32:
    """e^x in float32 within 1.5 ulp; 0 for x ≤ −87, held at e^88 above. NaN gives 0.

    Any shape. exp32(0) is exactly 1.

    >>> float(exp32(np.float32(0)))
    1.0
    """
    value = np.asarray(x, dtype=f32)
    held = np.where(value > EXP_MIN, value, EXP_OF_0)
    held = np.where(held > EXP_MAX, EXP_MAX, held)
    shifted = held * LOG2_E + ROUNDER
    n = shifted - ROUNDER
    r = (held - n * LN2_HIGH) - n * LN2_LOW
    square = r * r
    low = ONE + (r + square * (EXP_2 + EXP_3 * r))
    high = (EXP_4 + EXP_5 * r) + EXP_6 * square
    p = low + (square * square) * high
    scale = (shifted.view(np.int32) << EXPONENT_AT).view(f32)
    return np.asarray(p * scale, dtype=f32)


def log32(x: npt.ArrayLike) -> F32:
    """ln x, f32[...], within 2 ulp or 1e-7, for positive normal x; anything else is undefined.

    >>> float(log32(np.float32(1)))
    0.0
    """
    value = np.asarray(x, dtype=f32)
    bits = value.view(np.int32)
    n = ((bits >> np.int32(23)) - np.int32(127)).astype(f32)
    m = ((bits & np.int32(0x007FFFFF)) | np.int32(0x3F800000)).view(f32)
    large = m > SQRT_2
    m = np.where(large, m * HALF, m)
    n = np.where(large, n + ONE, n)
    f = m - ONE
    p = LOG_10 * f + LOG_9
    p = p * f + LOG_8
    p = p * f + LOG_7
    p = p * f + LOG_6
    p = p * f + LOG_5
    p = p * f + LOG_4
    p = p * f + LOG_3
    square = f * f
    tail = (p * f) * square - HALF * square
    return np.asarray((n * LN2_LOW + tail) + (f + n * LN2_HIGH), dtype=f32)


def lane_sum(x: F32) -> F32:
    """Sum over the last axis: eight running sums, then ((0,4),(2,6)) with ((1,5),(3,7)).

    f32[..., E] → f32[...], E ≥ 1; NaN gives NaN. At E = 512 the error is within
    64 roundings of one lane, far below that of a running sum.

    >>> float(lane_sum(np.ones((1, 20), np.float32))[0])
    20.0
    """
    experts = x.shape[-1]
    blocks = -(-experts // LANES)
    if experts != blocks * LANES:
        padded = np.zeros((*x.shape[:-1], blocks * LANES), dtype=f32)
        padded[..., :experts] = x
        x = padded
    lanes = x[..., :LANES]
    for start in range(LANES, blocks * LANES, LANES):
        lanes = lanes + x[..., start : start + LANES]
    lanes = lanes[..., :4] + lanes[..., 4:]
    lanes = lanes[..., :2] + lanes[..., 2:]
    # The compiled sums start from 0, so that a sum of negative zeros is +0; so must this one.
    return np.asarray((lanes[..., 0] + lanes[..., 1]) + ZERO, dtype=f32)


def clip32(x: F32, low: F32 | np.float32, high: F32 | np.float32) -> F32:
    """x held within [low, high]; unlike NumPy's clip it settles the sign of zero as the bounds'."""
    below = np.where(x < high, x, high)
    return np.where(below > low, below, low).astype(f32, copy=False)


def norm32(x: F32) -> F32:
    """‖x‖₂ ≥ 0 over the last axis, f32[..., E] → f32[...]."""
    return np.sqrt(lane_sum(x * x))
