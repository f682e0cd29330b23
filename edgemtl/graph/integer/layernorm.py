"""LayerNorm on integers: exact mean and variance, integer reciprocal square root, one rounding to INT8 per channel.

No cancellation is possible: D²·variance = D·Σx² - (Σx)² is formed exactly in 64 bits, where Edge-MoE subtracts
truncated means. After I-BERT (Kim et al., ICML 2021), but the root is exact, not iterated to a tolerance. The output
has one scale and centre per channel, folded into the next layer's weights and bias as in CoQMoE (2506.08496).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgemtl.graph.integer.fixed import saturate
from edgemtl.graph.integer.params import Norm

UNIT_BITS = 12  # fraction bits of a normalised value: |n| <= sqrt(384) < 32, so 18 bits hold it
GAMMA_BITS = 16  # fraction bits of gamma and beta
ROOT_BITS = 62  # the variance is normalised to [2^60, 2^62) before its root


def integer_sqrt(value: NDArray[np.int64]) -> NDArray[np.int64]:
    """Floor of the square root of values below 2^62."""
    root = np.sqrt(value.astype(np.float64)).astype(np.int64)
    root -= root * root > value
    root += (root + 1) * (root + 1) <= value
    return root


def normalise(stream: NDArray[np.int16], epsilon: int) -> NDArray[np.int64]:
    """Rows [M, D] to (x - mean) / sqrt(variance + eps) in Q5.12; epsilon is eps · D² in squared stream units."""
    x = stream.astype(np.int64)
    width = x.shape[1]
    total = x.sum(1, keepdims=True)
    variance = width * (x * x).sum(1, keepdims=True) - total * total + epsilon
    bits = np.frexp(variance.astype(np.float64))[1].astype(np.int64)
    bits -= (variance >> np.minimum(bits - 1, 62)) == 0  # the float may have rounded up to the next power of two
    up = (ROOT_BITS - bits) // 2
    root = integer_sqrt(variance << (2 * up))  # in [2^30, 2^31)
    reciprocal = (1 << 61) // root
    shift = 61 - UNIT_BITS - up
    out: NDArray[np.int64] = ((width * x - total) * reciprocal + (np.int64(1) << (shift - 1))) >> shift
    return out


def layer_norm(stream: NDArray[np.int16], norm: Norm) -> NDArray[np.int8]:
    """Rows of the residual stream [M, D] to INT8 [M, D]: n · gamma + beta per channel, one rounding, saturated."""
    by = UNIT_BITS + GAMMA_BITS
    n = normalise(stream, norm.epsilon)
    scaled = n * norm.gamma.astype(np.int64) + (norm.beta.astype(np.int64) << UNIT_BITS)
    return saturate((scaled + (1 << (by - 1))) >> by, 8).astype(np.int8)
