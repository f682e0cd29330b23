"""Normalised tokens as a map: they are stored for the convolution that reads it."""

from __future__ import annotations

from edgemtl.graph import Node
from edgemtl_compiler.cuda.lower import Lowering, Tensor
from edgemtl_compiler.cuda.ops.layernorm import Norm


def lower(to: Lowering, node: Node) -> Tensor:
    return to.value(node, 0, Norm).stored(to)
