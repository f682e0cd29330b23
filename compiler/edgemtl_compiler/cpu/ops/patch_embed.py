"""The patch embedding. The kernel takes multiples of 16 channels."""

from __future__ import annotations

from edgemtl.graph import Node
from edgemtl_compiler.cpu.emitter import Emitter, Value
from edgemtl_compiler.cpu.ops import Op
from edgemtl_compiler.cpu.plain import vectors
from edgemtl_compiler.cpu.tvm_adapter import relax


class PatchEmbed(Op):
    def kernel(self, to: Emitter, node: Node) -> Value | None:
        if node.shape[1] % 16:
            return None
        args = (to.planes(node.inputs[0]), *map(to.weight, node.weights), node.attributes["patch"])
        return Value(to.call(to.kernel_for("patch_embed", node.weights[0]), args, node.shape))

    def plain(self, to: Emitter, node: Node) -> Value:
        """The product is a kernel's; TVM gathers the patches and adds."""
        to.plain(node, 0)
        (height, width, depth), p, b = to.graph.shape(node.inputs[0]), node.attributes["patch"], to.builder
        (down, across), (rows, channels) = (height // p, width // p), node.shape
        split = (depth, down, p, across, p)
        patches = b.reorder(to.planes(node.inputs[0]), split, (1, 3, 0, 2, 4), (down * across, depth * p * p))
        kernel = to.kernel_for("linear", node.weights[0])
        products = to.call(kernel, (patches, to.weight(node.weights[0])), (rows - 1, channels))
        (first,), (learned,) = (vectors(to, w) for w in node.weights[1:])
        tokens = b.emit(relax.op.concat([b.reshape(first, (1, channels)), products], axis=0))
        return Value(b.emit(relax.op.add(tokens, b.reshape(learned, node.shape))))


OP = PatchEmbed()
