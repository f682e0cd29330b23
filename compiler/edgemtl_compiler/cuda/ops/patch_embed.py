"""An image, channels first, to tokens: one linear layer that reads patches and adds positions."""

from __future__ import annotations

from edgemtl.graph import Node
from edgemtl_compiler.cuda.lower import Lowering, Tensor, whole_units


def lower(to: Lowering, node: Node) -> Tensor:
    (height, width, channels), patch = to.graph.shapes(node)[0], node.attributes["patch"]
    rows, dim = to.rows(node), node.shape[1]
    whole_units(dim, channels * patch**2)
    out = to.tensor(node.name, rows * dim)
    to.linear("patch_embed", rows, dim, to.read(node, 0), *node.weights, out, rows, dim, height, width, patch)
    return out
