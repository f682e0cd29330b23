"""Learned positions added to tokens: by TVM."""

from __future__ import annotations

from edgemtl.graph import Node
from edgemtl_compiler.cpu.emitter import Emitter, Value
from edgemtl_compiler.cpu.ops import Op
from edgemtl_compiler.cpu.plain import vectors
from edgemtl_compiler.cpu.tvm_adapter import relax


class Positions(Op):
    def plain(self, to: Emitter, node: Node) -> Value:
        (learned,) = vectors(to, node.weights[0])
        return Value(to.builder.emit(relax.op.add(to.value(node.inputs[0]), to.builder.reshape(learned, node.shape))))


OP = Positions()
