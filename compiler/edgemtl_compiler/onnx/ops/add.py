"""A sum, of maps or of tokens."""

from __future__ import annotations

from edgemtl.graph import Node
from edgemtl_compiler.onnx.writer import Writer, added


def emit(w: Writer, node: Node, x: str, other: str) -> str:
    return added(w, x, other)
