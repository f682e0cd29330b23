"""A task's gate: always a kernel."""

from __future__ import annotations

from edgemtl.graph import Node
from edgemtl_compiler.cpu.emitter import Emitter, Value
from edgemtl_compiler.cpu.ops import Op


class Route(Op):
    def kernel(self, to: Emitter, node: Node) -> Value:
        """The bundle's gate has a column for every expert that the whole model holds; only the path's count."""
        a = node.attributes
        gate = (to.value(node.inputs[0]), to.weight(node.weights[0]))
        args = (*gate, a["held"], tuple(a["columns"]), int(a["renormalise"]))
        return Value(to.builder.call("route", args, [(node.shape, "int64"), (node.shape, "float32")]))


OP = Route()
