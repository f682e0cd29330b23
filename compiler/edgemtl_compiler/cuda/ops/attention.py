"""Attention between the two linear layers: a block for 16 queries of one head."""

from __future__ import annotations

from edgemtl.graph import Node
from edgemtl.graph.ops import want
from edgemtl_compiler.cuda.lower import Lowering, Tensor, blocks

HEADS = (16, 32, 64, 128)  # sizes of an attention head that there is a kernel for
_QUERIES, _WARPS = 16, 4  # kernels/attention.h


def shared(size: int) -> int:
    """Bytes of shared memory of a block; size: of a head."""
    return _WARPS * _QUERIES * (2 + size) * 4


def lower(to: Lowering, node: Node) -> Tensor:
    (tokens, dim), heads = node.shape, node.attributes["heads"]
    size = dim // heads
    want(size in HEADS, f"dim / heads is {size}; the CUDA kernels have heads of {', '.join(map(str, HEADS))} values")
    out = to.tensor(node.name, to.rows(node) * dim, rounded=True)
    grid = (blocks(tokens, _QUERIES), heads, to.batch)
    to.launch("attention", grid, _WARPS * 32, shared(size), to.read(node, 0, rounded=True), out, tokens, heads)
    return out
