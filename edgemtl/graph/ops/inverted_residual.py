"""An inverted residual (Sandler et al., CVPR 2018): expand 1x1, depthwise, project 1x1, and the input added.

ReLU6 after the first two, as in EfficientNet-Lite. It is one op so that a kernel can keep a strip of rows in the cache;
the three weight tensors stay three. Attributes: `middle`, channels within; `outputs`; `kernel`, `stride`, `padding` of
the depthwise step, as a convolution has them; `expand` and `shortcut`, whether there is a first step and a sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from edgemtl.graph.node import Array, Attributes, Node, Shape, Tensor
from edgemtl.graph.ops import Op, Within, want
from edgemtl.graph.ops.convolution import convolve, depthwise, output_size, tensor

_POINT, _NO_PADDING = (1, 1), ((0, 0), (0, 0))


class InvertedResidual(Op):
    def shape(self, inputs: Sequence[Shape], attributes: Attributes) -> Shape:
        a = attributes
        want(len(inputs) == 1 and len(inputs[0]) == 3, f"it takes a map [H, W, C], not {inputs}")
        want(a["expand"] or a["middle"] == inputs[0][2], f"without a first step {a['middle']} channels cannot come in")
        out = (*output_size(inputs[0][:2], a["kernel"], a["stride"], a["padding"]), a["outputs"])
        want(not a["shortcut"] or out == inputs[0], f"a shortcut cannot add {inputs[0]} to {out}")
        return out

    def tensors(self, inputs: Sequence[Shape], attributes: Attributes) -> tuple[Tensor, ...]:
        middle, kernel = attributes["middle"], attributes["kernel"]
        first = (tensor(middle, inputs[0][2], 1, _POINT, "expand"),) if attributes["expand"] else ()
        return *first, depthwise(middle, kernel), tensor(attributes["outputs"], middle, 1, _POINT, "project")

    def macs(self, node: Node, inputs: Sequence[Shape]) -> int:
        """The first step works on the input's pixels, the others on the output's."""
        *first, taps, project = (prod(w.sources[0][1]) for w in node.weights)
        return prod(inputs[0][:2]) * sum(first) + prod(node.shape[:2]) * (taps + project)

    def parts(self, node: Node) -> Mapping[str, int]:
        middle = int(node.attributes["middle"])
        return {"expand": middle, "depthwise": middle} if node.attributes["expand"] else {"depthwise": middle}

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Sequence[Array]], see: Within) -> Any:
        *first, (taps, second), (project, third) = weights
        x = inputs[0]
        for weight, bias in first:
            x = np.clip(convolve(x, weight, bias, _POINT, _NO_PADDING), 0, 6)
            see("expand", x)
        x = np.clip(convolve(x, taps, second, node.attributes["stride"], node.attributes["padding"]), 0, 6)
        see("depthwise", x)
        x = convolve(x, project, third, _POINT, _NO_PADDING)
        return x + inputs[0] if node.attributes["shortcut"] else x


OP = InvertedResidual()
