"""An integer network as data: every weight, factor and table that the accelerator reads, as NumPy arrays.

`quantise` builds a Network from a float model, `integer_forward` runs it, `image` packs it for the device.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgemtl.config import ModelConfig
from edgemtl.graph.integer.params import Attention, Depthwise, Gate, Gelu, Int16, Linear, Mlp, Norm, Scaling


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
