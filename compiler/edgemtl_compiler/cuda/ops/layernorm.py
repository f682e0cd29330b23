"""A layer normalisation is no launch of its own where a linear layer or a gate reads it: they compute it. What else
reads it asks for it to be stored.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgemtl.graph import Node, Weight
from edgemtl.graph.ops import want
from edgemtl_compiler.cuda.lower import Lowering, Tensor, blocks, whole_units

_ROWS = 4  # of a block, a warp each; kernels/conv_head.h


@dataclass(frozen=True)
class Norm:
    """To be taken of each row of `x`, without the first `skip` of an image."""

    node: Node
    x: Tensor
    weight: Weight
    eps: float
    skip: int

    def stored(self, to: Lowering) -> Tensor:
        """It, computed: rounded. Raises ValueError."""
        (patches, dim), rows = self.node.shape, to.rows(self.node)
        want(self.skip == 1, f"there is one that stores {self.node.name} without its first token, and none with it")
        out = to.tensor(self.node.name, rows * dim, rounded=True)
        sizes = (rows, patches, dim, self.eps)
        to.launch("normalise_patches", (blocks(rows, _ROWS),), _ROWS * 32, 0, self.x, self.weight, out, *sizes)
        return out


def lower(to: Lowering, node: Node) -> Norm:
    whole_units(node.shape[1])
    return Norm(node, to.read(node, 0), node.weights[0], node.attributes["eps"], node.attributes["skip"])
