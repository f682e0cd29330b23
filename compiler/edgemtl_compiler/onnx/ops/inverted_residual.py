"""An inverted residual as its two or three convolutions."""

from __future__ import annotations

from edgemtl.graph import Node
from edgemtl_compiler.onnx.writer import Writer, activated, added, convolution


def emit(w: Writer, node: Node, x: str) -> str:
    *expand, taps, project = node.weights
    a, y = node.attributes, x
    for weight in expand:
        y = activated(w, "relu6", convolution(w, y, weight))
    y = activated(w, "relu6", convolution(w, y, taps, a["stride"], a["padding"], a["middle"]))
    return added(w, convolution(w, y, project), *([x] if a["shortcut"] else []))
