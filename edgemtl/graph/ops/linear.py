"""A linear layer on tokens: activation(x · Wᵀ + b), and a second input, if there is one, added at the end.

Attributes: `outputs`, `activation`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgemtl.graph.node import Array, Attributes, Node, Shape, Tensor
from edgemtl.graph.ops import Op, Within, want
from edgemtl.graph.ops._activations import ACTIVATIONS, known

if TYPE_CHECKING:
    from edgemtl.graph.integer import Units


class Linear(Op):
    def shape(self, inputs: Sequence[Shape], attributes: Attributes) -> Shape:
        known(attributes["activation"])
        want(len(inputs) > 0 and len(inputs[0]) == 2, f"it takes tokens [N, C], not {inputs}")
        out = (inputs[0][0], attributes["outputs"])
        want(tuple(inputs[1:]) in ((), (out,)), f"what is added has the shape {out}, not {inputs[1:]}")
        return out

    def tensors(self, inputs: Sequence[Shape], attributes: Attributes) -> tuple[Tensor, ...]:
        n = attributes["outputs"]
        return (Tensor("linear", (("weight", (n, inputs[0][1])), ("bias", (n,)))),)

    def macs(self, node: Node, inputs: Sequence[Shape]) -> int:
        return inputs[0][0] * inputs[0][1] * node.shape[1]

    def parts(self, node: Node) -> Mapping[str, int]:
        return {"inner": node.shape[-1]} if node.attributes["activation"] != "none" else {}

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Sequence[Array]], see: Within) -> Any:
        (weight, bias), activation = weights[0], node.attributes["activation"]
        out = inputs[0] @ weight.T + bias
        if activation != "none":
            see("inner", out)
            out = ACTIVATIONS[activation](out)
        return out + inputs[1] if len(inputs) > 1 else out

    def integer(self, node: Node, inputs: Sequence[Any], params: Any, units: Units) -> Any:
        """INT8 rows to INT8 or INT16, or added to the INT16 stream."""
        x, u, wide = inputs[0], params.linear, params.bits == 16
        if len(inputs) > 1:
            return units.add(x, u, inputs[1])
        if params.gelu is None:
            return units.to_int16(x, u) if wide else units.to_int8(x, u)
        return units.gelu_int16(x, u, params.gelu) if wide else units.gelu_int8(x, u, params.gelu)


OP = Linear()
