"""Fixed-point factors and the one rounding rule of every unit.

The scheme is the usual one of integer-only inference (Jacob et al., CVPR 2018): an exact integer sum, one
multiplication by a positive factor `multiplier · 2^-shift`, one rounding, one saturation. The multiplier has 17 bits
because a DSP48E2 multiplies 27 by 18 bits, signed: a sum fits the one operand and a multiplier the other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

MULTIPLIER_BITS = 17  # multipliers lie in [2^16, 2^17)
MIN_SHIFT, MAX_SHIFT = 1, 46
BIAS_LIMIT = 2**25 - 1  # a bias outside ±BIAS_LIMIT is saturated when it is loaded

Int = NDArray[Any]


def fixed_point(factor: NDArray[np.float64] | float) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Positive factors as (multiplier, shift): factor ≈ multiplier · 2^-shift, within 2^-17 relative.

    Raises ValueError for a factor that is not finite or outside 2^-30 … 2^15.
    """
    value = np.asarray(factor, np.float64)
    if not (np.isfinite(value).all() and (value >= 2.0**-30).all() and (value <= 2.0**15).all()):
        raise ValueError("requantisation factors must lie between 2^-30 and 2^15")
    mantissa, exponent = np.frexp(value)
    multiplier = np.rint(mantissa * 2.0**MULTIPLIER_BITS).astype(np.int64)
    carried = multiplier == 2**MULTIPLIER_BITS
    multiplier = np.where(carried, 2 ** (MULTIPLIER_BITS - 1), multiplier)
    shift = MULTIPLIER_BITS - exponent.astype(np.int64) - carried
    return multiplier.astype(np.int32), shift.astype(np.uint8)


def scale(total: Int, multiplier: Int | int, shift: Int | int) -> NDArray[np.int64]:
    """(total · multiplier + 2^(shift-1)) >> shift, arithmetic shift, so ties go towards plus infinity."""
    by = np.asarray(shift, np.int64)
    half = np.left_shift(np.int64(1), by - 1)
    return np.right_shift(total.astype(np.int64) * np.asarray(multiplier, np.int64) + half, by)


def saturate(value: Int, bits: int) -> NDArray[np.int64]:
    """Clamp to the range of a signed integer of `bits` bits."""
    return np.clip(value, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1).astype(np.int64)


def scaled_int8(total: Int, multiplier: Int | int, shift: Int | int) -> NDArray[np.int8]:
    """`scale`, saturated to INT8."""
    return saturate(scale(total, multiplier, shift), 8).astype(np.int8)


def scaled_int16(total: Int, multiplier: Int | int, shift: Int | int) -> NDArray[np.int16]:
    """`scale`, saturated to INT16."""
    return saturate(scale(total, multiplier, shift), 16).astype(np.int16)
