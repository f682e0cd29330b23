"""Tokens as tiles of a map: they stay where the projection wrote them, and kernels read them as tiles."""

from __future__ import annotations

from edgemtl.graph import Node
from edgemtl_compiler.cpu.emitter import Emitter, Value
from edgemtl_compiler.cpu.ops import Op


class Tiles(Op):
    def kernel(self, to: Emitter, node: Node) -> Value:
        down, across = node.attributes["grid"]
        return Value(to.value(node.inputs[0]), tiles=(down, across, node.attributes["tile"]))


OP = Tiles()
