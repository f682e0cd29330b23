"""A head's step. The kernel takes a 3x3 kernel and multiples of 16 channels, on tiles or on a map, whose pixels are
tiles of one.
"""

from __future__ import annotations

from math import prod

from edgemtl.graph import Node
from edgemtl_compiler.cpu.emitter import Emitter, Value
from edgemtl_compiler.cpu.ops import Op
from edgemtl_compiler.cpu.plain import activate, convolve


class SeparableStep(Op):
    def kernel(self, to: Emitter, node: Node) -> Value | None:
        if node.shape[2] % 16 or node.attributes["kernel"] != (3, 3):
            return None
        x, grid = to.tiles(node.inputs[0])
        args = (x, *map(to.weight, node.weights), (*grid, node.shape[2]))
        return Value(to.call(to.kernel_for("separable_step", node.weights[1]), args, tuple(x.ty.shape)), tiles=grid)

    def plain(self, to: Emitter, node: Node) -> Value:
        """The 1x1 half is a kernel's."""
        taps, mix = node.weights
        to.plain(node, prod(node.shape[:2]) * prod(taps.sources[0][1]))
        x, (high, wide) = to.value(node.inputs[0]), (k // 2 for k in node.attributes["kernel"])
        how = {"stride": (1, 1), "padding": ((high, high), (wide, wide)), "groups": node.shape[2]}
        inner = activate(to, convolve(to, x, taps, how), "gelu")
        return Value(to.call(to.kernel_for("linear_residual", mix), (inner, to.weight(mix), x), node.shape))


OP = SeparableStep()
