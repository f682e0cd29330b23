"""Values side by side along their channels. No attributes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgemtl.graph.node import Array, Attributes, Node, Shape
from edgemtl.graph.ops import Op, Within, want


class Concat(Op):
    def shape(self, inputs: Sequence[Shape], attributes: Attributes) -> Shape:
        fits = len(inputs) > 0 and all(s[:-1] == inputs[0][:-1] for s in inputs)
        want(fits, f"its inputs differ in their channels alone, not {inputs}")
        return (*inputs[0][:-1], sum(s[-1] for s in inputs))

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Sequence[Array]], see: Within) -> Any:
        return np.concatenate(list(inputs), -1)


OP = Concat()
