"""Convolutions of the heads: 3x3 with ReLU, which keeps the size, and the 1x1 step to the raw map, channels first."""

from __future__ import annotations

from edgemtl.graph import Node
from edgemtl.graph.ops import want
from edgemtl_compiler.cuda.lower import THREADS, Lowering, Tensor, blocks, whole_units
from edgemtl_compiler.cuda.ops import tiles

_USUAL = {"stride": (1, 1), "groups": 1, "bias": True}
_STEP = {"kernel": (3, 3), "padding": ((1, 1), (1, 1)), "activation": "relu"}
_LAST = {"kernel": (1, 1), "padding": ((0, 0), (0, 0)), "activation": "none"}


def lower(to: Lowering, node: Node) -> Tensor:
    a, (high, wide, channels) = node.attributes, node.shape
    (weight,), depth, rows = node.weights, to.graph.shapes(node)[0][2], to.rows(node)
    step, last = (all(a[key] == value for key, value in (_USUAL | form).items()) for form in (_STEP, _LAST))
    last = last and node.name in to.graph.outputs
    want((step or last) and len(node.inputs) == 1, "there is one of 3x3 with ReLU, and one of 1x1 at the end")
    whole_units(depth)
    out = to.tensor(node.name, rows * channels)
    if last:
        x = to.read(node, 0, tiled=True)
        grid = (blocks(high * wide, THREADS), blocks(channels, 16), to.batch)
        to.launch("to_map", grid, THREADS, 0, x, weight, out, channels, depth, *tiles.sizes(x, node))
    else:
        whole_units(channels)
        x = to.read(node, 0, rounded=True)
        to.linear("conv_relu", rows, channels, x, weight, out, rows, depth, channels, high, wide)
    return out
