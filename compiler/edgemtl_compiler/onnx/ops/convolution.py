"""A convolution, its activation, and what is added at the end."""

from __future__ import annotations

from edgemtl.graph import Node
from edgemtl_compiler.onnx.writer import Writer, activated, added, convolution


def emit(w: Writer, node: Node, x: str, *others: str) -> str:
    a = node.attributes
    y = convolution(w, x, node.weights[0], a["stride"], a["padding"], a["groups"])
    return added(w, activated(w, a["activation"], y), *others)
