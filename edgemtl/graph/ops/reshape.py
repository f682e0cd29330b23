"""The same values in the same order under another shape: a map's pixels as tokens, or tokens as a map.

Attribute: `shape`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from edgemtl.graph.node import Array, Attributes, Node, Shape
from edgemtl.graph.ops import Op, Within, want


class Reshape(Op):
    def shape(self, inputs: Sequence[Shape], attributes: Attributes) -> Shape:
        shape: Shape = attributes["shape"]
        want(len(inputs) == 1 and prod(inputs[0]) == prod(shape), f"{inputs} has not the values of {shape}")
        return shape

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Sequence[Array]], see: Within) -> Any:
        return inputs[0].reshape(node.shape)


OP = Reshape()
