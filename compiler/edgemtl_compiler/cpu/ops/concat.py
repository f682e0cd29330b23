"""Values side by side along their channels: by TVM."""

from __future__ import annotations

from edgemtl.graph import Node
from edgemtl_compiler.cpu.emitter import Emitter, Value
from edgemtl_compiler.cpu.ops import Op
from edgemtl_compiler.cpu.tvm_adapter import relax


class Concat(Op):
    def plain(self, to: Emitter, node: Node) -> Value:
        return Value(to.builder.emit(relax.op.concat([*map(to.value, node.inputs)], axis=-1)))


OP = Concat()
