"""A path's experts, each on exactly the tokens that chose it: residual + Σ score · expert(x).

An expert is a linear layer, GELU, and a linear layer back (M3ViT, Liang et al., NeurIPS 2022). Inputs: tokens, routing,
residual. Attributes: `experts`, the path's, by their numbers in the whole model; `hidden`. One weight tensor each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgemtl.graph.node import Array, Attributes, Node, Shape, Tensor
from edgemtl.graph.ops import Op, Within, want
from edgemtl.graph.ops._activations import gelu

if TYPE_CHECKING:
    from edgemtl.graph.integer import Units


class Experts(Op):
    def shape(self, inputs: Sequence[Shape], attributes: Attributes) -> Shape:
        fits = len(inputs) == 3 and len(inputs[0]) == 2 and inputs[0] == inputs[2] and inputs[1][:1] == inputs[0][:1]
        want(fits, f"it takes tokens [N, C], a routing [N, k] and a residual [N, C], not {inputs}")
        count, k = len(attributes["experts"]), inputs[1][1]
        want(count >= k, f"a token chooses {k} of its experts, which are {count}")
        return inputs[0]

    def tensors(self, inputs: Sequence[Shape], attributes: Attributes) -> tuple[Tensor, ...]:
        c, h = inputs[0][1], attributes["hidden"]
        up, down = (("htoh4.weight", (h, c)), ("htoh4.bias", (h,))), (("h4toh.weight", (c, h)), ("h4toh.bias", (c,)))
        return (Tensor("expert", up + down),) * len(attributes["experts"])

    def macs(self, node: Node, inputs: Sequence[Shape]) -> int:
        (rows, channels), k = inputs[0], inputs[1][1]
        return rows * k * 2 * channels * int(node.attributes["hidden"])

    def parts(self, node: Node) -> Mapping[str, int]:
        return {f"fc1.{expert}": int(node.attributes["hidden"]) for expert in node.attributes["experts"]}

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Sequence[Array]], see: Within) -> Any:
        x, (index, score), residual = inputs
        out = residual.copy()
        for at, expert in enumerate(node.attributes["experts"]):
            tokens, choice = (index == at).nonzero()
            if len(tokens):
                w1, b1, w2, b2 = weights[at]
                inner = x[tokens] @ w1.T + b1
                see(f"fc1.{expert}", inner)
                out[tokens] += (gelu(inner) @ w2.T + b2) * score[tokens, choice, None]  # a token is here once at most
        return out

    def integer(self, node: Node, inputs: Sequence[Any], params: Any, units: Units) -> Any:
        """INT8 rows through the chosen experts, added to the INT16 stream in ascending order. params: all that are
        held."""
        x, (index, score), stream = inputs[0], inputs[1], inputs[2].copy()
        for at, weight in enumerate(node.weights):
            tokens, choice = (index == at).nonzero()
            if len(tokens):
                mlp = params[weight.row]
                inner = units.gelu_int8(x[tokens], mlp.fc1, mlp.gelu)
                stream[tokens] = units.add_scored(inner, mlp.fc2, stream[tokens], score[tokens, choice])
        return stream


OP = Experts()
