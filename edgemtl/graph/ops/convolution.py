"""A convolution on a map: activation(conv(x) + b), and a second input, if there is one, added at the end.

Attributes: `outputs`; `kernel` and `stride`, down and across; `groups`; `padding`, zeros ((above, below), (left,
right)); `activation`; `bias`. The weight is [outputs, inputs / groups, kernel]. Packing depends on what it is: 1x1 is a
linear layer on pixels, a group per channel is depthwise; without a bias it is stored as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from edgemtl.graph.node import Array, Attributes, Kind, Node, Shape, Tensor
from edgemtl.graph.ops import Op, Within, want
from edgemtl.graph.ops._activations import ACTIVATIONS, known

if TYPE_CHECKING:
    from edgemtl.graph.integer import Units

Pair = tuple[int, int]
Padding = tuple[Pair, Pair]


def output_size(size: Sequence[int], kernel: Pair, stride: Pair, padding: Padding) -> Pair:
    """Height and width of the output. Raises ValueError where the kernel is larger than the padded map."""
    sides = [n + sum(p) - k for n, p, k in zip(size, padding, kernel, strict=True)]
    want(min(sides) >= 0, f"a kernel of {kernel} does not fit a map of {tuple(size)} with {padding} around it")
    return sides[0] // stride[0] + 1, sides[1] // stride[1] + 1


def tensor(outputs: int, inputs: int, groups: int, kernel: Pair, name: str = "", *, bias: bool = True) -> Tensor:
    """The weight tensor of a convolution."""
    want(inputs % groups == 0 and outputs % groups == 0, f"{inputs} to {outputs} channels are not {groups} groups")
    shape = (outputs, inputs // groups, *kernel)
    if not bias:
        return Tensor("vector", (("weight", shape),), name)
    kind: Kind = "linear" if kernel == (1, 1) and groups == 1 else "conv"
    if 1 < groups == inputs == outputs:
        kind = "taps"
    return Tensor(kind, (("weight", shape), ("bias", (outputs,))), name)


def depthwise(channels: int, kernel: Pair) -> Tensor:
    """The weight tensor of a depthwise step, of one channel too."""
    return Tensor("taps", (("weight", (channels, 1, *kernel)), ("bias", (channels,))), "depthwise")


def convolve(x: Array, weight: Array, bias: Array | None, stride: Pair, padding: Padding) -> Array:
    """x [H, W, inputs], weight [outputs, inputs / groups, kernel] to [h, w, outputs]; the sum goes tap by tap."""
    outputs, per_group, *kernel = weight.shape
    groups = x.shape[2] // per_group
    height, width = output_size(x.shape[:2], (kernel[0], kernel[1]), stride, padding)
    wide = np.pad(x, (*padding, (0, 0))) if any(map(any, padding)) else x
    out = np.zeros((height, width, outputs), np.result_type(x, weight)) + (0 if bias is None else bias)
    for i, j in np.ndindex(*kernel):
        seen = wide[i : i + height * stride[0] : stride[0], j : j + width * stride[1] : stride[1]]
        if per_group == 1 and groups == outputs:
            out += seen * weight[:, 0, i, j]
        else:
            rows = seen.reshape(-1, groups, per_group).swapaxes(0, 1)
            mixed = rows @ weight[:, :, i, j].reshape(groups, -1, per_group).swapaxes(1, 2)
            out += mixed.swapaxes(0, 1).reshape(out.shape)
    return out


class Convolution(Op):
    def shape(self, inputs: Sequence[Shape], attributes: Attributes) -> Shape:
        known(attributes["activation"])
        want(len(inputs) > 0 and len(inputs[0]) == 3, f"it takes a map [H, W, C], not {inputs}")
        size = output_size(inputs[0][:2], attributes["kernel"], attributes["stride"], attributes["padding"])
        out = (*size, attributes["outputs"])
        want(tuple(inputs[1:]) in ((), (out,)), f"what is added has the shape {out}, not {inputs[1:]}")
        return out

    def tensors(self, inputs: Sequence[Shape], attributes: Attributes) -> tuple[Tensor, ...]:
        a = attributes
        return (tensor(a["outputs"], inputs[0][2], a["groups"], a["kernel"], bias=a["bias"]),)

    def macs(self, node: Node, inputs: Sequence[Shape]) -> int:
        return prod(node.shape[:2]) * prod(node.weights[0].sources[0][1])

    def parts(self, node: Node) -> Mapping[str, int]:
        return {"inner": node.shape[-1]} if node.attributes["activation"] != "none" else {}

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Sequence[Array]], see: Within) -> Any:
        (weight, *bias), activation = weights[0], node.attributes["activation"]
        out = convolve(
            inputs[0], weight, bias[0] if bias else None, node.attributes["stride"], node.attributes["padding"]
        )
        if activation != "none":
            see("inner", out)
            out = ACTIVATIONS[activation](out)
        return out + inputs[1] if len(inputs) > 1 else out

    def integer(self, node: Node, inputs: Sequence[Any], params: Any, units: Units) -> Any:
        """The light head's last product: an INT16 stream to a raw map, INT16 too."""
        from edgemtl.graph.integer import narrow

        rows = narrow(inputs[0], params.narrow)
        return units.to_int16(rows.reshape(-1, rows.shape[-1]), params.linear).reshape(*rows.shape[:2], -1)


OP = Convolution()
