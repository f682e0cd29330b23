"""Softmax weights on integers: 2^-t by a table of 256 fractions and a shift.

exp(x - max) = 2^-((max - x) · log2 e), and log2 e is folded into the factor, as I-BERT's shift-based exponential does
with a polynomial (Kim et al., ICML 2021). The maximum is exact and the sums are exact integers, hence the result does
not depend on the order in which keys arrive: a kernel may stream them in any order.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgemtl.graph.integer.fixed import Int, scale

FRACTION_BITS = 8  # of the exponent t
WEIGHT_BITS = 15  # a weight is UQ1.15; the largest of a row is exactly 2^15
RECIPROCAL_BITS = 42
EXP2_TABLE: NDArray[np.uint16] = np.rint(2.0 ** (WEIGHT_BITS - np.arange(256) / 256)).astype(np.uint16)


def exp2_negative(t: Int) -> NDArray[np.int64]:
    """2^(-t / 256) in UQ1.15 for integers t >= 0; zero from t = 16 · 256 on."""
    whole = np.minimum(t >> FRACTION_BITS, 16)
    value = EXP2_TABLE[t & 255].astype(np.int64)
    rounded = (value + ((np.int64(1) << whole) >> 1)) >> whole
    return np.where(whole >= 16, 0, rounded)


def softmax_weights(logits: Int, multiplier: Int | int, shift: Int | int) -> NDArray[np.int64]:
    """Unnormalised weights [..., N] of integer logits [..., N]; the factor turns a logit into 256 · log2 units."""
    distance = logits.max(-1, keepdims=True).astype(np.int64) - logits
    return exp2_negative(scale(distance, multiplier, shift))


def reciprocal(total: Int) -> NDArray[np.int64]:
    """floor(2^42 / total)."""
    return np.floor_divide(np.int64(1) << RECIPROCAL_BITS, total)
