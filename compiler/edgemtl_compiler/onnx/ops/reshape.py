"""The same values in the graph's order, which has channels last; between a map and its pixels two ONNX nodes."""

from __future__ import annotations

from edgemtl.graph import Node
from edgemtl_compiler.onnx.writer import Writer


def emit(w: Writer, node: Node, x: str) -> str:
    if len(w.shape(node.inputs[0])) == 4:
        x = w("Transpose", x, perm=(0, 2, 3, 1))
    is_map = len(node.shape) == 3
    out: str = w("Reshape", x, w.integers(*((1,) if is_map else ()), *node.shape))
    return w("Transpose", out, perm=(0, 3, 1, 2)) if is_map else out
