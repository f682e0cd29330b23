"""A linear layer on tokens, its activation, and what is added at the end."""

from __future__ import annotations

from edgemtl.graph import Node
from edgemtl_compiler.onnx.writer import Writer, activated, added


def emit(w: Writer, node: Node, x: str, *others: str) -> str:
    y = w("Gemm", x, *w.weight(node.weights[0]), transB=1)
    return added(w, activated(w, node.attributes["activation"], y), *others)
