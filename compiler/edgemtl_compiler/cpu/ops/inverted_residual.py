"""An inverted residual: one kernel. Of other than multiples of 16 channels its depthwise step is TVM's; in INT8 the
kernel needs a first step.
"""

from __future__ import annotations

from math import prod

from edgemtl.graph import Node
from edgemtl_compiler.cpu.emitter import Emitter, Value
from edgemtl_compiler.cpu.ops import Op
from edgemtl_compiler.cpu.ops.convolution import MOST_ROWS, window
from edgemtl_compiler.cpu.plain import activate, convolve
from edgemtl_compiler.quantise.fake_int8 import MOST_TAPS


class InvertedResidual(Op):
    def kernel(self, to: Emitter, node: Node) -> Value | None:
        a = node.attributes
        *first, _, project = node.weights
        if a["middle"] % 16 or a["kernel"][0] > MOST_ROWS or len({to.int8(w) for w in (*first, project)}) > 1:
            return None
        if to.int8(project) and (not first or prod(a["kernel"]) > MOST_TAPS):
            return None
        name = to.kernel_for("inverted_residual" if first else "separable_block", project)
        args = (to.value(node.inputs[0]), *map(to.weight, node.weights), window(to, node), int(a["shortcut"]))
        return Value(to.call(name, args, node.shape))

    def plain(self, to: Emitter, node: Node) -> Value:
        a, (*first, taps, project) = node.attributes, node.weights
        to.plain(node, prod(node.shape[:2]) * prod(taps.sources[0][1]))
        given = x = to.value(node.inputs[0])
        for weight in first:
            shape = (*to.graph.shapes(node)[0][:2], a["middle"])
            x = activate(to, to.call(to.kernel_for("linear", weight), (x, to.weight(weight)), shape), "relu6")
        x = activate(to, convolve(to, x, taps, {**a, "groups": a["middle"]}), "relu6")
        name, added = ("linear_residual", (given,)) if a["shortcut"] else ("linear", ())
        return Value(to.call(to.kernel_for(name, project), (x, to.weight(project), *added), node.shape))


OP = InvertedResidual()
