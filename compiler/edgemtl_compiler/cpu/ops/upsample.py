"""A map of twice the size: by TVM, unless the convolution or the sum after it doubles what it reads."""

from __future__ import annotations

from edgemtl.graph import Node
from edgemtl_compiler.cpu.emitter import Emitter, Value
from edgemtl_compiler.cpu.ops import Op
from edgemtl_compiler.cpu.tvm_adapter import relax


class Upsample(Op):
    def plain(self, to: Emitter, node: Node) -> Value:
        given, (height, width, _) = to.graph.shape(node.inputs[0]), node.shape
        image = to.builder.reshape(to.value(node.inputs[0]), (1, *given))
        how = {"layout": "NHWC", "method": "linear", "coordinate_transformation_mode": "half_pixel"}
        doubled = to.builder.emit(relax.op.image.resize2d(image, (height, width), **how))
        return Value(to.builder.reshape(doubled, node.shape))


OP = Upsample()
