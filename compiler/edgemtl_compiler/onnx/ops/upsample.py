"""A map of twice the height and width."""

from __future__ import annotations

from edgemtl.graph import Node
from edgemtl_compiler.onnx.writer import Writer


def emit(w: Writer, node: Node, x: str) -> str:
    out: str = w("Resize", x, "", w.floats(1, 1, 2, 2), mode="linear", coordinate_transformation_mode="half_pixel")
    return out
