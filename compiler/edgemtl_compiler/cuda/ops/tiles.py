"""Tokens as tiles of a map: no launch, the values stay where they are."""

from __future__ import annotations

from dataclasses import replace

from edgemtl.graph import Node
from edgemtl_compiler.cuda.lower import Lowering, Tensor


def lower(to: Lowering, node: Node) -> Tensor:
    return replace(to.read(node, 0), tile=node.attributes["tile"])


def sizes(x: Tensor, node: Node) -> tuple[int, int, int]:
    """Of a map of the shape of `node` that lies as `x` does: tiles down and across, and a tile's side."""
    return node.shape[0] // x.tile, node.shape[1] // x.tile, x.tile
