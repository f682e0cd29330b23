"""Multi-head self-attention (Vaswani et al., 2017): [N, 3C], queries, keys and values side by side, to [N, C].

Attribute: `heads`. It has no weights; the projections before and after are linear layers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgemtl.graph.node import Array, Attributes, Node, Shape
from edgemtl.graph.ops import Op, Within, want
from edgemtl.graph.ops._activations import softmax

if TYPE_CHECKING:
    from edgemtl.graph.integer import Units


class Attention(Op):
    def shape(self, inputs: Sequence[Shape], attributes: Attributes) -> Shape:
        want(len(inputs) == 1 and len(inputs[0]) == 2, f"it takes tokens [N, 3C], not {inputs}")
        (rows, wide), heads = inputs[0], attributes["heads"]
        want(wide % (3 * heads) == 0, f"{wide} values do not divide into three times {heads} heads")
        return rows, wide // 3

    def macs(self, node: Node, inputs: Sequence[Shape]) -> int:
        rows, channels = node.shape
        return 2 * rows * rows * channels

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Sequence[Array]], see: Within) -> Any:
        rows, heads = len(inputs[0]), node.attributes["heads"]
        q, k, v = inputs[0].reshape(rows, 3, heads, -1).transpose(1, 2, 0, 3)  # each [heads, N, size]
        share = softmax(q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1]))
        return (share @ v).transpose(1, 0, 2).reshape(rows, -1)

    def integer(self, node: Node, inputs: Sequence[Any], params: Any, units: Units) -> Any:
        """INT8 to INT8."""
        q, k, v = np.split(inputs[0], 3, 1)
        return units.attention(q, k, v, params)


OP = Attention()
