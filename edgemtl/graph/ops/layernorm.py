"""Layer normalisation (Ba et al., 2016) of each token. Attributes: `eps`; `skip`, leading tokens left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgemtl.graph.node import Array, Attributes, Node, Shape, Tensor
from edgemtl.graph.ops import Op, Within, want

if TYPE_CHECKING:
    from edgemtl.graph.integer import Units


class LayerNorm(Op):
    def shape(self, inputs: Sequence[Shape], attributes: Attributes) -> Shape:
        want(len(inputs) == 1 and len(inputs[0]) == 2, f"it takes tokens [N, C], not {inputs}")
        (rows, channels), skip = inputs[0], attributes["skip"]
        want(0 <= skip < rows, f"of {rows} tokens it cannot leave out {skip}")
        want(attributes["eps"] > 0, f"eps is above 0, not {attributes['eps']}")
        return rows - skip, channels

    def tensors(self, inputs: Sequence[Shape], attributes: Attributes) -> tuple[Tensor, ...]:
        c = inputs[0][1]
        return (Tensor("norm", (("weight", (c,)), ("bias", (c,)))),)

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Sequence[Array]], see: Within) -> Any:
        (weight, bias), x = weights[0], inputs[0][node.attributes["skip"] :]
        return normalised(x, node.attributes["eps"]) * weight + bias

    def integer(self, node: Node, inputs: Sequence[Any], params: Any, units: Units) -> Any:
        """The INT16 stream to INT8."""
        from edgemtl.graph.integer import layer_norm

        return layer_norm(inputs[0][node.attributes["skip"] :], params)


def normalised(x: Array, eps: float) -> Array:
    """x with mean 0 and variance 1 over its last axis."""
    centred = x - x.mean(-1, keepdims=True)
    out: Array = centred / np.sqrt((centred * centred).mean(-1, keepdims=True) + eps)
    return out


OP = LayerNorm()
