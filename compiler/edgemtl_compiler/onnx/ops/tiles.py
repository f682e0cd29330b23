"""Each token as a square tile of pixels."""

from __future__ import annotations

from edgemtl.graph import Node
from edgemtl_compiler.onnx.writer import Writer


def emit(w: Writer, node: Node, x: str) -> str:
    (rows, columns), tile = node.attributes["grid"], node.attributes["tile"]
    split = w("Reshape", x, w.integers(rows, columns, tile, tile, node.shape[2]))
    out: str = w("Reshape", w("Transpose", split, perm=(4, 0, 2, 1, 3)), w.integers(*w.shape(node.name)))
    return out
