"""A map of twice the size, rounded for the convolution that reads it."""

from __future__ import annotations

from edgemtl.graph import Node
from edgemtl_compiler.cuda.lower import THREADS, Lowering, Tensor


def lower(to: Lowering, node: Node) -> Tensor:
    high, wide, channels = to.graph.shapes(node)[0]
    x, out = to.read(node, 0), to.tensor(node.name, to.rows(node) * channels, rounded=True)
    to.launch("double_map", (4 * high * wide, 1, to.batch), THREADS, 0, x, out, high, wide, channels)
    return out
