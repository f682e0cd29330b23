"""A convolution. Kernels: 1x1 as a linear layer on pixels, or as the last step, which writes planes; 3x3 with ReLU, of
a map or of one doubled, which is never stored; and one for the rest that mixes all channels.
"""

from __future__ import annotations

from edgemtl.graph import Node
from edgemtl.graph.network import PREFIX
from edgemtl_compiler.cpu.emitter import Emitter, Value
from edgemtl_compiler.cpu.ops import Op
from edgemtl_compiler.cpu.plain import activate, convolve
from edgemtl_compiler.cpu.tvm_adapter import relax

ACTIVATIONS = ("none", "relu", "relu6", "gelu")  # by the number that the kernel knows them by
MOST_ROWS = 16  # of a kernel
_AROUND = {1: ((0, 0), (0, 0)), 3: ((1, 1), (1, 1))}


def _usual(to: Emitter, node: Node, size: int) -> bool:
    """Whether it is square of this size, keeps the map's size, and mixes all channels."""
    a = node.attributes
    square = (a["kernel"], a["stride"], a["padding"], a["groups"]) == ((size, size), (1, 1), _AROUND[size], 1)
    return square and bool(a["bias"])


def _relu3(to: Emitter, node: Node) -> bool:
    plain = len(node.inputs) == 1 and node.attributes["activation"] == "relu"
    return plain and _usual(to, node, 3) and to.graph.shapes(node)[0][2] % 16 == 0 and not to.int8(node.weights[0])


def _last(to: Emitter, node: Node) -> bool:
    """Whether it gives the raw map."""
    return to.graph.name != PREFIX and node.name in to.graph.outputs and not to.graph.users(node.name)


def window(to: Emitter, node: Node) -> tuple[int, ...]:
    """What a kernel sees of its map, as kernels/convolution.h has it."""
    a, (height, width, _) = node.attributes, to.graph.shapes(node)[0]
    (above, _), (left, _) = a["padding"]
    return (height, width, *a["kernel"], *a["stride"], above, left, *node.shape[:2])


class Convolution(Op):
    def takes(self, to: Emitter, node: Node) -> tuple[Node, ...]:
        doubled = to.before(node, "upsample") if _relu3(to, node) else None
        return (doubled,) if doubled else ()

    def kernel(self, to: Emitter, node: Node) -> Value | None:
        weight = node.weights[0]
        if _relu3(to, node):
            doubled = to.before(node, "upsample")
            x = to.value(doubled.inputs[0] if doubled else node.inputs[0])
            args = (x, to.weight(weight), node.shape[:2], int(doubled is not None))
            return Value(to.call("conv_relu", args, node.shape))
        if not _usual(to, node, 1) or node.attributes["activation"] != "none":
            return self._any(to, node)
        if _last(to, node) and len(node.inputs) == 1 and not to.int8(weight):
            (height, width, channels), (x, grid) = node.shape, to.tiles(node.inputs[0])
            shape = (*grid, to.graph.shapes(node)[0][2])
            return Value(to.call("to_map", (x, to.weight(weight), shape), (1, channels, height, width)), planes=True)
        name = "linear" if len(node.inputs) == 1 else "linear_residual"
        x, *added = map(to.value, node.inputs)
        return Value(to.call(to.kernel_for(name, weight), (x, to.weight(weight), *added), node.shape))

    def _any(self, to: Emitter, node: Node) -> Value | None:
        a, (weight,) = node.attributes, node.weights
        fits = a["groups"] == 1 and a["bias"] and len(node.inputs) == 1 and a["kernel"][0] <= MOST_ROWS
        if not fits or to.int8(weight) or weight.kind == "taps":
            return None
        x, planes = to.pixels(node.inputs[0])
        args = (x, to.weight(weight), window(to, node), int(planes), ACTIVATIONS.index(a["activation"]))
        return Value(to.call("convolution", args, node.shape))

    def plain(self, to: Emitter, node: Node) -> Value:
        x = convolve(to, to.value(node.inputs[0]), node.weights[0], node.attributes)
        out = activate(to, x, node.attributes["activation"])
        for name in node.inputs[1:]:
            out = to.builder.emit(relax.op.add(out, to.value(name)))
        return Value(out)


OP = Convolution()
