"""Layer normalisation of the tokens that are not left out."""

from __future__ import annotations

from edgemtl.graph import Node
from edgemtl_compiler.onnx.writer import Writer


def emit(w: Writer, node: Node, x: str) -> str:
    if skip := node.attributes["skip"]:
        x = w("Slice", x, w.integers(skip), w.integers(skip + node.shape[0]), w.integers(0))
    out: str = w("LayerNormalization", x, *w.weight(node.weights[0]), axis=-1, epsilon=node.attributes["eps"])
    return out
