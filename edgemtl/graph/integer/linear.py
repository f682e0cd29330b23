"""The unified linear unit: one product of rows and weights for embedding, projections, MLP, experts and heads.

The sum is exact, so its order does not matter. What happens to a sum is the epilogue: to INT8, through GELU, added
to the residual stream, or added to it times an expert's score.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemtl.graph.integer.fixed import BIAS_LIMIT, Int, saturate, scale, scaled_int8
from edgemtl.graph.integer.params import Linear, Scaling

SCORE_BITS = 15  # a score is UQ1.15: 32768 is one
EXACT_INPUTS = 2**10  # so many products of INT8 values add up exactly in float32
GUARD_BITS = 8  # an expert's output carries these fraction bits more than the residual stream


def sums(x: NDArray[np.int8], linear: Linear) -> NDArray[np.int32]:
    """x [M, K] times weight [N, K] plus the saturated bias [N]: exact INT32 sums [M, N].

    Floating-point products are the fastest that NumPy has, and exact here: every partial sum is a whole number of at
    most K · 2^14, which float32 holds up to 2^24 and float64 beyond.
    """
    exact: Any = np.float32 if x.shape[1] <= EXACT_INPUTS else np.float64
    product = x.astype(exact) @ linear.weight.astype(exact).T
    bias = np.clip(linear.bias, -BIAS_LIMIT, BIAS_LIMIT)
    out: NDArray[np.int32] = (product.astype(np.int64) + bias).astype(np.int32)
    return out


def add_to_stream(stream: NDArray[np.int16], total: Int, linear: Linear) -> NDArray[np.int16]:
    """stream [M, N] + scaled sums [M, N], one rounding, saturated to INT16."""
    return saturate(stream + scale(total, linear.multiplier, linear.shift), 16).astype(np.int16)


def accumulate_scored(
    stream: NDArray[np.int16], total: Int, linear: Linear, score: NDArray[np.uint16]
) -> NDArray[np.int16]:
    """stream [M, N] + score [M] · expert output [M, N]; the output is INT32 with GUARD_BITS more fraction bits."""
    output = saturate(scale(total, linear.multiplier, linear.shift), 32)
    by = SCORE_BITS + GUARD_BITS
    share = np.right_shift(output * score.astype(np.int64)[:, None] + (1 << (by - 1)), by)
    return saturate(stream + share, 16).astype(np.int16)


def narrow(stream: NDArray[np.int16], scaling: Scaling) -> NDArray[np.int8]:
    """INT16 [..., C] plus a bias per channel, scaled to INT8."""
    bias = np.clip(scaling.bias, -BIAS_LIMIT, BIAS_LIMIT)
    return scaled_int8(stream.astype(np.int64) + bias, scaling.multiplier, scaling.shift)
