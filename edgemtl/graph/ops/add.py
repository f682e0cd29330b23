"""The sum of two values of one shape. No attributes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgemtl.graph.node import Array, Attributes, Node, Shape
from edgemtl.graph.ops import Op, Within, want


class Add(Op):
    def shape(self, inputs: Sequence[Shape], attributes: Attributes) -> Shape:
        want(len(inputs) == 2 and inputs[0] == inputs[1], f"it takes two values of one shape, not {inputs}")
        return inputs[0]

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Sequence[Array]], see: Within) -> Any:
        return inputs[0] + inputs[1]


OP = Add()
