"""Integer NumPy reference of the accelerator's units: the specification that C simulation and RTL must equal.

The scheme is the usual one for integer-only inference (Jacob et al., CVPR 2018): INT8 operands, INT32 sums, one
multiplication by a per-channel fixed-point factor with one rounding. Formats and tie rules: docs/numerics.md.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MIN_SHIFT, MAX_SHIFT = 1, 62


def requantise(total: NDArray[np.int32], multiplier: NDArray[np.int32], shift: NDArray[np.uint8]) -> NDArray[np.int8]:
    """INT32 sums [..., N] to INT8: (total · multiplier + 2^(shift-1)) >> shift, saturated; ties towards +infinity."""
    half = np.left_shift(np.int64(1), shift.astype(np.int64) - 1)
    scaled = np.right_shift(total.astype(np.int64) * multiplier + half, shift.astype(np.int64))
    return np.clip(scaled, -128, 127).astype(np.int8)


def linear(
    x: NDArray[np.int8],
    weight: NDArray[np.int8],
    bias: NDArray[np.int32],
    multiplier: NDArray[np.int32],
    shift: NDArray[np.uint8],
) -> NDArray[np.int8]:
    """x [M, K] times weight [N, K] plus bias [N], requantised per output channel to INT8 [M, N]."""
    return requantise(x.astype(np.int32) @ weight.astype(np.int32).T + bias, multiplier, shift)


def fixed_point(scale: NDArray[np.float64]) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Positive factors as (multiplier, shift) with multiplier in [2^30, 2^31): scale ≈ multiplier · 2^-shift.

    Raises ValueError for a factor outside 2^-31 … 2^29, whose shift would leave its range.
    """
    mantissa, exponent = np.frexp(scale)
    multiplier = np.rint(mantissa * 2.0**31).astype(np.int64)
    exponent = exponent + (multiplier == 2**31)
    multiplier = np.where(multiplier == 2**31, 2**30, multiplier)
    shift = 31 - exponent.astype(np.int64)
    if not (
        np.isfinite(scale).all() and (scale > 0).all() and (shift >= MIN_SHIFT).all() and (shift <= MAX_SHIFT).all()
    ):
        raise ValueError("requantisation factors must be positive and between 2^-31 and 2^29")
    return multiplier.astype(np.int32), shift.astype(np.uint8)
