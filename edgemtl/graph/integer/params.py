"""What the integer ops read besides their inputs: weights, factors and tables, as NumPy arrays.

Factors are `multiplier · 2^-shift`, per output channel (docs/numerics.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Int8 = NDArray[np.int8]
Int16 = NDArray[np.int16]
Int32 = NDArray[np.int32]
UInt8 = NDArray[np.uint8]
UInt16 = NDArray[np.uint16]


@dataclass(frozen=True)
class Linear:
    """weight [N, K], bias [N] in units of the sum, multiplier and shift [N]."""

    weight: Int8
    bias: Int32
    multiplier: Int32
    shift: UInt8


@dataclass(frozen=True)
class Scaling:
    """bias [C] added before multiplier and shift [C]."""

    bias: Int32
    multiplier: Int32
    shift: UInt8


@dataclass(frozen=True)
class Taps:
    """A 3x3 filter per channel: weight [9, C], in raster order; bias, multiplier and shift [C]."""

    weight: Int8
    bias: Int32
    multiplier: Int32
    shift: UInt8


@dataclass(frozen=True)
class Gelu:
    """table [512] of delta in input units at |p| = i << step; `zero` is added to an INT8 output."""

    table: UInt16
    step: int
    zero: int


@dataclass(frozen=True)
class Norm:
    """gamma and beta [D] with 16 fraction bits, in units of the INT8 output; epsilon · D² in squared stream units."""

    gamma: Int32
    beta: Int32
    epsilon: int


@dataclass(frozen=True)
class Attention:
    """exp_* [heads] turn a score into 256 · log2 units; out_* [D] turn a Q.16 mean of values into the INT8 output."""

    exp_multiplier: Int32
    exp_shift: UInt8
    out_multiplier: Int32
    out_shift: UInt8


@dataclass(frozen=True)
class Gate:
    """weight [E, D] and bias [E] over a task's path; experts: slots of the path in the bank, ascending."""

    weight: Int16
    bias: Int32
    experts: tuple[int, ...]
    multiplier: int
    shift: int


@dataclass(frozen=True)
class Mlp:
    """fc1 to INT16 with four fraction bits, GELU to INT8, fc2 to the residual stream (guarded for an expert)."""

    fc1: Linear
    gelu: Gelu
    fc2: Linear


@dataclass(frozen=True)
class Embed:
    """Patches to the stream; position [tokens, D]: position embedding, the class token's row included, in its units."""

    patches: Linear
    position: Int16


@dataclass(frozen=True)
class Layer:
    """A linear layer whose output, added to a stream or not, has `bits` 8 or 16; through GELU if there is a table."""

    linear: Linear
    bits: int
    gelu: Gelu | None = None


@dataclass(frozen=True)
class Step:
    """x + pointwise(GELU(taps(x))) of the light head."""

    taps: Taps
    gelu: Gelu
    pointwise: Linear


@dataclass(frozen=True)
class Output:
    """The light head's last product, to INT16 in units of `unit`; `narrow` makes its input INT8."""

    narrow: Scaling
    linear: Linear
    unit: float
