"""Multi-head attention. The products are INT8 where the queries' layer is; heads are multiples of 16 values."""

from __future__ import annotations

import math

from edgemtl.graph import Node
from edgemtl_compiler.cpu.emitter import Emitter, Value
from edgemtl_compiler.cpu.ops import Op
from edgemtl_compiler.cpu.tvm_adapter import relax


def fits(node: Node) -> bool:
    """Whether there are kernels for heads of this size."""
    return bool(node.shape[1] // node.attributes["heads"] % 16 == 0)


def int8(to: Emitter, node: Node) -> bool:
    """Whether its products are INT8."""
    layer = to.before(node, "linear")
    return layer is not None and fits(node) and to.int8(layer.weights[0])


class Attention(Op):
    def kernel(self, to: Emitter, node: Node) -> Value | None:
        if not fits(node):
            return None
        kernel = "attention_i8" if int8(to, node) else "attention"
        return Value(to.call(kernel, (to.value(node.inputs[0]), node.attributes["heads"]), node.shape))

    def plain(self, to: Emitter, node: Node) -> Value:
        (rows, channels), heads, b = node.shape, node.attributes["heads"], to.builder
        size, qkv = channels // heads, to.value(node.inputs[0])
        parts = b.reorder(qkv, (rows, 3, heads, size), (1, 2, 0, 3), (3, heads, rows, size))
        q, k, v = (
            b.reshape(b.emit(relax.op.strided_slice(parts, [0], [i], [i + 1])), (heads, rows, size)) for i in range(3)
        )
        keys = b.emit(relax.op.permute_dims(k, [0, 2, 1]))
        scores = relax.op.multiply(relax.op.matmul(q, keys), relax.const(1 / math.sqrt(size), "float32"))
        mixed = b.emit(relax.op.matmul(b.emit(relax.op.nn.softmax(b.emit(scores), axis=-1)), v))
        return Value(b.reorder(mixed, (heads, rows, size), (1, 0, 2), node.shape))


OP = Attention()
