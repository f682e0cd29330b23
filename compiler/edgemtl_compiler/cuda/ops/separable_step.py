"""A head's step, in one launch: the taps are summed where the linear layer reads its rows."""

from __future__ import annotations

from edgemtl.graph import Node
from edgemtl.graph.ops import want
from edgemtl_compiler.cuda.lower import Lowering, Tensor, whole_units
from edgemtl_compiler.cuda.ops import tiles


def lower(to: Lowering, node: Node) -> Tensor:
    x, rows, channels = to.read(node, 0, tiled=True), to.rows(node), node.shape[2]
    want(node.attributes["kernel"] == (3, 3), f"there are 3x3 taps, not {node.attributes['kernel']}")
    whole_units(channels)
    out = to.tensor(node.name, rows * channels, tile=x.tile)
    sizes = (rows, channels, *tiles.sizes(x, node))
    to.linear("separable_step", rows, channels, x, *node.weights, out, *sizes)
    return out
