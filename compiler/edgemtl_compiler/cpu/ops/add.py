"""The sum of two values: by TVM, but for a map doubled and a finer one, which a kernel adds as it doubles."""

from __future__ import annotations

from edgemtl.graph import Node
from edgemtl_compiler.cpu.emitter import Emitter, Value
from edgemtl_compiler.cpu.ops import Op
from edgemtl_compiler.cpu.tvm_adapter import relax


class Add(Op):
    def takes(self, to: Emitter, node: Node) -> tuple[Node, ...]:
        doubled = to.before(node, "upsample")
        return (doubled,) if doubled and node.shape[2] % 16 == 0 else ()

    def kernel(self, to: Emitter, node: Node) -> Value | None:
        doubled, finer = self.takes(to, node), to.value(node.inputs[1])
        if not doubled:
            return None
        args = (to.value(doubled[0].inputs[0]), finer, node.shape[:2])
        return Value(to.call("doubled_sum", args, node.shape))

    def plain(self, to: Emitter, node: Node) -> Value:
        a, b = map(to.value, node.inputs)
        return Value(to.builder.emit(relax.op.add(a, b)))


OP = Add()
