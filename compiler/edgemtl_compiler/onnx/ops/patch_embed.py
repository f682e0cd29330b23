"""An image to tokens: a convolution whose stride is its kernel, a class token before the others, and positions."""

from __future__ import annotations

from edgemtl.graph import Node
from edgemtl_compiler.onnx.writer import Writer, added, convolution


def emit(w: Writer, node: Node, image: str) -> str:
    (rows, channels), patch = node.shape, node.attributes["patch"]
    patches, first, positions = node.weights
    grid = convolution(w, image, patches, (patch, patch))
    tokens = w("Transpose", w("Reshape", grid, w.integers(channels, rows - 1)), perm=(1, 0))
    both = w("Concat", *w.weight(first, lambda a: a[0]), tokens, axis=0)
    return added(w, both, *w.weight(positions, lambda a: a[0]))
