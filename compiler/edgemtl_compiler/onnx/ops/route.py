"""A gate. ONNX's TopK gives ties to the lower index, which is this project's rule."""

from __future__ import annotations

from edgemtl.graph import Node
from edgemtl_compiler.onnx.writer import Writer, added


def emit(w: Writer, node: Node, x: str) -> tuple[str, str]:
    """Logits are a sum per expert, not a product of matrices, so that equal columns give equal bits, a tie."""
    columns, a = list(node.attributes["columns"]), node.attributes
    gate, *bias = w.weight(node.weights[0], lambda array: array[..., columns].T)
    product = w("Mul", w("Unsqueeze", x, w.integers(1)), gate)  # [N, experts, C]
    logits = added(w, w("ReduceSum", product, w.integers(2), keepdims=0), *bias)
    _, index = w("TopK", logits, w.integers(a["top_k"]), outputs=2, axis=-1)
    score = w("GatherElements", w("Softmax", logits, axis=-1), index, axis=-1)
    if a["renormalise"]:
        score = w("Div", score, w("ReduceSum", score, w.integers(1), keepdims=1))
    return index, score
