"""A head's step: x + pointwise(GELU(depthwise(x))), with zeros around the map so that it keeps its size.

It is one op because every target has one kernel for it; the two weight tensors stay two. Attribute: `kernel`, odd.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgemtl.graph.node import Array, Attributes, Node, Shape, Tensor
from edgemtl.graph.ops import Op, Within, want
from edgemtl.graph.ops._activations import gelu
from edgemtl.graph.ops.convolution import convolve, depthwise, tensor

if TYPE_CHECKING:
    from edgemtl.graph.integer import Units
    from edgemtl.graph.integer.params import Taps


class SeparableStep(Op):
    def shape(self, inputs: Sequence[Shape], attributes: Attributes) -> Shape:
        want(len(inputs) == 1 and len(inputs[0]) == 3, f"it takes a map [H, W, C], not {inputs}")
        want(all(k % 2 for k in attributes["kernel"]), f"an odd kernel keeps the size, not {attributes['kernel']}")
        return inputs[0]

    def tensors(self, inputs: Sequence[Shape], attributes: Attributes) -> tuple[Tensor, ...]:
        c = inputs[0][2]
        return depthwise(c, attributes["kernel"]), tensor(c, c, 1, (1, 1), "pointwise")

    def macs(self, node: Node, inputs: Sequence[Shape]) -> int:
        return prod(node.shape[:2]) * sum(prod(w.sources[0][1]) for w in node.weights)

    def parts(self, node: Node) -> Mapping[str, int]:
        return {"depthwise": node.shape[-1]}

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Sequence[Array]], see: Within) -> Any:
        (taps, first), (mix, second) = weights
        high, wide = (k // 2 for k in node.attributes["kernel"])
        inner = convolve(inputs[0], taps, first, (1, 1), ((high, high), (wide, wide)))
        see("depthwise", inner)
        return inputs[0] + convolve(gelu(inner), mix, second, (1, 1), ((0, 0), (0, 0)))

    def integer(self, node: Node, inputs: Sequence[Any], params: Any, units: Units) -> Any:
        """An INT16 stream to another."""
        from edgemtl.graph.integer import gelu_int8

        inner = gelu_int8(filtered(inputs[0], params.taps), params.gelu)
        width = inner.shape[-1]
        out = units.add(inner.reshape(-1, width), params.pointwise, inputs[0].reshape(-1, width))
        return out.reshape(inner.shape)


def filtered(image: NDArray[np.int16], params: Taps) -> NDArray[np.int16]:
    """A stream [H, W, C] through its channels' filters, zeros outside; scaled to INT16.

    Sums are exact, so it does not matter that the accelerator's memory has the pixels in the order of tiles.
    """
    from edgemtl.graph.integer.fixed import BIAS_LIMIT, scaled_int16

    height, width, _ = image.shape
    wide = np.pad(image.astype(np.int64), ((1, 1), (1, 1), (0, 0)))
    bias = np.clip(params.bias, -BIAS_LIMIT, BIAS_LIMIT).astype(np.int64)
    total = np.broadcast_to(bias, image.shape)
    for tap, weight in enumerate(params.weight.astype(np.int64)):
        dy, dx = divmod(tap, 3)
        total = total + wide[dy : dy + height, dx : dx + width] * weight
    return scaled_int16(total, params.multiplier, params.shift)


OP = SeparableStep()
