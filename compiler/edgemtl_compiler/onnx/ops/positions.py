"""A learned vector added to each token."""

from __future__ import annotations

from edgemtl.graph import Node
from edgemtl_compiler.onnx.writer import Writer, added


def emit(w: Writer, node: Node, x: str) -> str:
    return added(w, x, *w.weight(node.weights[0], lambda a: a[0]))
