"""Values side by side along their channels."""

from __future__ import annotations

from edgemtl.graph import Node
from edgemtl_compiler.onnx.writer import Writer


def emit(w: Writer, node: Node, *inputs: str) -> str:
    out: str = w("Concat", *inputs, axis=1)
    return out
