"""A path's experts, one after the other, each over exactly the rows that NonZero finds for it."""

from __future__ import annotations

import numpy as np

from edgemtl.graph import Node
from edgemtl_compiler.onnx.writer import Writer, gelu


def emit(w: Writer, node: Node, x: str, index: str, score: str, residual: str) -> str:
    out, scores = residual, w("Unsqueeze", score, w.integers(2))
    for at, expert in enumerate(node.weights):
        w1, b1, w2, b2 = w.weight(expert)
        chosen = w("NonZero", w("Equal", index, w.constant(np.array(at, np.int64))))
        places = w("Transpose", chosen, perm=(1, 0))  # [m, 2]: rows, and which of the row's choices
        rows = w("Gather", places, w.integers(0), axis=1)
        hidden = gelu(w, w("Gemm", w("GatherND", x, rows), w1, b1, transB=1))
        y = w("Mul", w("Gemm", hidden, w2, b2, transB=1), w("GatherND", scores, places))
        out = w("ScatterND", out, rows, y, reduction="add")
    return out
