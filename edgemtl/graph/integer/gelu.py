"""GELU as ReLU minus a table: gelu(x) = max(x, 0) - delta(|x|), with delta even and almost zero beyond 5.5.

The identity is Edge-MoE's (Sarkar et al., ICCAD 2023). Here the sum arrives as INT16 with four fraction bits of the
INT8 output, so GELU and requantisation share one rounding; the table is per layer (or expert), in those units, and
read with linear interpolation. The output's zero point moves the range [-0.17, max] onto all 256 codes; the next
layer's bias takes it back.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from edgemtl.graph.integer.fixed import saturate
from edgemtl.graph.integer.params import Gelu

ENTRIES = 512
REACH = 5.5  # delta(5.5) is 1.1e-7
FRACTION_BITS = 4  # of the input, below the INT8 output's unit


def gelu_table(unit: float, zero: int = 0) -> Gelu:
    """Table for inputs p in units of `unit`: x = p · unit. Entry i is delta at |p| = i << step; after the last, zero.

    Raises ValueError for a unit so small that an entry or the reach does not fit 16 bits.
    """
    if not 3e-6 < unit < math.inf:
        raise ValueError(f"a GELU input unit of {unit:g} is outside the table's range")
    step = max(0, math.ceil(math.log2(REACH / unit / ENTRIES)))
    x = (np.arange(ENTRIES) << step) * unit
    tail = np.array([0.5 * math.erfc(v / math.sqrt(2)) for v in x])
    return Gelu(np.rint(x * tail / unit).astype(np.uint16), step, zero)


def gelu_int16(p: NDArray[np.int16], gelu: Gelu) -> NDArray[np.int16]:
    """GELU of p in p's own units: INT16 to INT16."""
    wide = p.astype(np.int64)
    table = np.append(gelu.table.astype(np.int64), [0, 0])
    index = np.minimum(np.abs(wide) >> gelu.step, ENTRIES)
    rest = np.abs(wide) & ((1 << gelu.step) - 1)
    here, after = table[index], table[index + 1]
    delta = here + (((after - here) * rest + ((1 << gelu.step) >> 1)) >> gelu.step)
    return saturate(np.maximum(wide, 0) - delta, 16).astype(np.int16)


def gelu_int8(p: NDArray[np.int16], gelu: Gelu) -> NDArray[np.int8]:
    """GELU of p, rounded to units 2^FRACTION_BITS as large, plus the zero point, saturated to INT8."""
    rounded = (gelu_int16(p, gelu).astype(np.int64) + (1 << (FRACTION_BITS - 1))) >> FRACTION_BITS
    return saturate(rounded + gelu.zero, 8).astype(np.int8)
