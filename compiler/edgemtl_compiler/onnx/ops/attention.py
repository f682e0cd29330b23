"""Multi-head self-attention: one node from opset 23 on, its products and a softmax before."""

from __future__ import annotations

from edgemtl.graph import Node
from edgemtl_compiler.onnx.writer import Writer


def emit(w: Writer, node: Node, x: str) -> str:
    (rows, channels), heads = node.shape, node.attributes["heads"]
    if w.opset >= 23:
        parts = w("Split", w("Reshape", x, w.integers(1, rows, 3 * channels)), outputs=3, axis=2, num_outputs=3)
        y = w("Attention", *parts, q_num_heads=heads, kv_num_heads=heads)
    else:
        size = channels // heads
        split = w("Transpose", w("Reshape", x, w.integers(rows, 3, heads, size)), perm=(1, 2, 0, 3))
        q, k, v = w("Split", split, outputs=3, axis=0, num_outputs=3)  # each [1, heads, N, size]
        logits = w("MatMul", w("Mul", q, w.floats(size**-0.5)), w("Transpose", k, perm=(0, 1, 3, 2)))
        y = w("Transpose", w("MatMul", w("Softmax", logits, axis=-1), v), perm=(0, 2, 1, 3))
    out: str = w("Reshape", y, w.integers(rows, channels))
    return out
