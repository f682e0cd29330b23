"""Layer normalisation. The kernel leaves out leading tokens itself; it takes multiples of 16 channels."""

from __future__ import annotations

from edgemtl.graph import Node
from edgemtl_compiler.cpu.emitter import Emitter, Value
from edgemtl_compiler.cpu.ops import Op
from edgemtl_compiler.cpu.plain import vectors
from edgemtl_compiler.cpu.tvm_adapter import relax


class LayerNorm(Op):
    def kernel(self, to: Emitter, node: Node) -> Value | None:
        if node.shape[1] % 16:
            return None
        args = (to.value(node.inputs[0]), to.weight(node.weights[0]), node.attributes["eps"])
        return Value(to.call("layernorm", args, node.shape))

    def plain(self, to: Emitter, node: Node) -> Value:
        x, skip = to.value(node.inputs[0]), node.attributes["skip"]
        kept = relax.op.strided_slice(x, [0], [skip], [skip + node.shape[0]])
        scale, shift = vectors(to, node.weights[0])
        normed = relax.op.nn.layer_norm(kept, scale, shift, axes=[-1], epsilon=node.attributes["eps"])
        return Value(to.builder.emit(normed))


OP = LayerNorm()
