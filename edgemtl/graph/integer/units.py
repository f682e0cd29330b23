"""The units that a frame's products and attention run on: NumPy here, the SystemVerilog twins in `hls/rtl.py`.

`edgemtl.graph.run.run_integers` hands them to the ops; what takes the place of `Units` must give the same integers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgemtl.graph.integer.attention import attention
from edgemtl.graph.integer.fixed import scaled_int8, scaled_int16
from edgemtl.graph.integer.gelu import gelu_int8, gelu_int16
from edgemtl.graph.integer.linear import accumulate_scored, add_to_stream, sums
from edgemtl.graph.integer.params import Attention, Gelu, Linear


class Units:
    """Rows x INT8 [M, K] through a Linear u of N outputs, by epilogue; streams are INT16 [M, N], scores UINT16 [M]."""

    def to_int8(self, x: NDArray[np.int8], u: Linear) -> NDArray[np.int8]:
        """The product, requantised to INT8 [M, N]."""
        return scaled_int8(sums(x, u), u.multiplier, u.shift)

    def to_int16(self, x: NDArray[np.int8], u: Linear) -> NDArray[np.int16]:
        """The product, requantised to INT16 [M, N]."""
        return scaled_int16(sums(x, u), u.multiplier, u.shift)

    def gelu_int8(self, x: NDArray[np.int8], u: Linear, gelu: Gelu) -> NDArray[np.int8]:
        """The product through GELU to INT8 [M, N]."""
        return gelu_int8(scaled_int16(sums(x, u), u.multiplier, u.shift), gelu)

    def gelu_int16(self, x: NDArray[np.int8], u: Linear, gelu: Gelu) -> NDArray[np.int16]:
        """The product through GELU to INT16 [M, N]."""
        return gelu_int16(scaled_int16(sums(x, u), u.multiplier, u.shift), gelu)

    def add(self, x: NDArray[np.int8], u: Linear, stream: NDArray[np.int16]) -> NDArray[np.int16]:
        """stream plus the product."""
        return add_to_stream(stream, sums(x, u), u)

    def add_scored(
        self, x: NDArray[np.int8], u: Linear, stream: NDArray[np.int16], score: NDArray[np.uint16]
    ) -> NDArray[np.int16]:
        """stream plus score times the product."""
        return accumulate_scored(stream, sums(x, u), u, score)

    def attention(
        self, q: NDArray[np.int8], k: NDArray[np.int8], v: NDArray[np.int8], u: Attention
    ) -> NDArray[np.int8]:
        """q, k, v [N, D] to the heads' outputs [N, D]."""
        return attention(q, k, v, u)


NUMPY = Units()
