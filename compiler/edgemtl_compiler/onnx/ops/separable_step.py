"""A head's step as two convolutions and a sum."""

from __future__ import annotations

from edgemtl.graph import Node
from edgemtl_compiler.onnx.writer import Writer, added, convolution, gelu


def emit(w: Writer, node: Node, x: str) -> str:
    (high, wide), channels = (k // 2 for k in node.attributes["kernel"]), node.shape[2]
    taps, pointwise = node.weights
    inner = convolution(w, x, taps, padding=((high, high), (wide, wide)), groups=channels)
    return added(w, x, convolution(w, gelu(w, inner), pointwise))
