"""The rays' directions as a constant map."""

from __future__ import annotations

import numpy as np

from edgemtl.graph import Node
from edgemtl.graph.ops import find
from edgemtl_compiler.onnx.writer import Writer


def emit(w: Writer, node: Node) -> str:
    directions = find("rays").run(node, (), (), lambda name, value: None)
    return w.constant(np.ascontiguousarray(directions.transpose(2, 0, 1)[None]))
