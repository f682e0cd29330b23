"""A path's experts: always a kernel, with a parameter for each expert of the path."""

from __future__ import annotations

from edgemtl.graph import Node
from edgemtl_compiler.cpu.emitter import Emitter, Value
from edgemtl_compiler.cpu.ops import Op


class Experts(Op):
    def kernel(self, to: Emitter, node: Node) -> Value | None:
        if len({to.int8(w) for w in node.weights}) > 1:  # a kernel multiplies all in one type
            return None
        x, routing, residual = node.inputs
        values = (to.value(x), *to.routing(routing), to.value(residual))
        args = (*values, node.attributes["hidden"], *map(to.weight, node.weights))
        return Value(to.call(to.kernel_for("experts", node.weights[0]), args, node.shape))


OP = Experts()
