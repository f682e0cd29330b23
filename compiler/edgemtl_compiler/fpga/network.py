"""An integer network as data: every weight, factor and table that the accelerator reads, as NumPy arrays.

Factors are `multiplier · 2^-shift`, per output channel (docs/numerics.md). `quantise` builds a Network from a float
model, `reference.integer_forward` runs it, `image` packs it for the device.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgemtl.config import ModelConfig

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
class Depthwise:
    """weight [9, C], taps in raster order; bias, multiplier and shift [C]."""

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
class Block:
    """One transformer block: `mlp` in a dense one, `experts` in a mixture."""

    norm1: Norm
    qkv: Linear
    attention: Attention
    proj: Linear
    norm2: Norm
    mlp: Mlp | None
    experts: tuple[Mlp, ...]


@dataclass(frozen=True)
class Step:
    """x + pointwise(GELU(depthwise(x))) of the light head."""

    depthwise: Depthwise
    gelu: Gelu
    pointwise: Linear


@dataclass(frozen=True)
class Head:
    """A task's light head; raw values are INT16 in units of `unit`; its stream has `stream_bits` fraction bits."""

    norm: Norm
    proj: Linear
    gelu: Gelu
    steps: tuple[Step, ...]
    narrow: Scaling
    out: Linear
    unit: float
    stream_bits: int


@dataclass(frozen=True)
class Network:
    """All tasks of a model: one trunk and bank of experts, gates per (task, block index), a head per task.

    Without any head the network ends with the trunk: its output is the residual stream, and heads run on the host.

    position [tokens, D]: position embedding, the class token's row included, in stream units of 2^-stream_bits.
    """

    config: ModelConfig
    stream_bits: int
    embed: Linear
    position: Int16
    blocks: tuple[Block, ...]
    gates: dict[tuple[str, int], Gate]
    heads: dict[str, Head]

    def unit(self, task: str) -> float:
        """What one step of the output of `task` stands for."""
        return self.heads[task].unit if self.heads else 2.0**-self.stream_bits
