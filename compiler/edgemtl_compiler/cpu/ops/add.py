"""The sum of two values: by TVM."""

from __future__ import annotations

from edgemtl.graph import Node
from edgemtl_compiler.cpu.emitter import Emitter, Value
from edgemtl_compiler.cpu.ops import Op
from edgemtl_compiler.cpu.tvm_adapter import relax


class Add(Op):
    def plain(self, to: Emitter, node: Node) -> Value:
        a, b = map(to.value, node.inputs)
        return Value(to.builder.emit(relax.op.add(a, b)))


OP = Add()
