"""Tokens with a learned vector added to each, its position's. No attributes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgemtl.graph.node import Array, Attributes, Node, Shape, Tensor
from edgemtl.graph.ops import Op, Within, want


class Positions(Op):
    def shape(self, inputs: Sequence[Shape], attributes: Attributes) -> Shape:
        want(len(inputs) == 1 and len(inputs[0]) == 2, f"it takes tokens [N, C], not {inputs}")
        return inputs[0]

    def tensors(self, inputs: Sequence[Shape], attributes: Attributes) -> tuple[Tensor, ...]:
        return (Tensor("vector", (("", (1, *inputs[0])),)),)

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Sequence[Array]], see: Within) -> Any:
        return inputs[0] + weights[0][0][0]


OP = Positions()
