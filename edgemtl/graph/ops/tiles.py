"""Each token as a square tile of pixels: [rows · columns, tile² · D] to a map [rows · tile, columns · tile, D].

A pixel shuffle (Shi et al., CVPR 2016) with channels last. Attributes: `grid` (rows, columns), `tile`. Kernels leave
the values where the projection wrote them and read them as tiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edgemtl.graph.node import Array, Attributes, Node, Shape
from edgemtl.graph.ops import Op, Within, want

if TYPE_CHECKING:
    from edgemtl.graph.integer import Units


class Tiles(Op):
    def shape(self, inputs: Sequence[Shape], attributes: Attributes) -> Shape:
        (rows, columns), tile = attributes["grid"], attributes["tile"]
        fits = len(inputs) == 1 and len(inputs[0]) == 2 and inputs[0][0] == rows * columns
        want(fits and inputs[0][1] % tile**2 == 0, f"{inputs} are not tiles of {tile}x{tile} on {rows}x{columns}")
        return rows * tile, columns * tile, inputs[0][1] // tile**2

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Sequence[Array]], see: Within) -> Any:
        (rows, columns), tile = node.attributes["grid"], node.attributes["tile"]
        return inputs[0].reshape(rows, columns, tile, tile, -1).transpose(0, 2, 1, 3, 4).reshape(node.shape)

    def integer(self, node: Node, inputs: Sequence[Any], params: Any, units: Units) -> Any:
        return self.run(node, inputs, (), lambda *_: None)


OP = Tiles()
