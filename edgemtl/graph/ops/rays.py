"""The direction of each pixel's ray as a constant map [rows, columns, 2]: x right and y up at unit depth.

For a pinhole camera with square pixels (after DSINE, Bae & Davison, CVPR 2024). It has no input. Attributes: `rows`,
`columns`; `fov`, the horizontal field of view in degrees.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgemtl.graph.node import Array, Attributes, Node, Shape
from edgemtl.graph.ops import Op, Within, want


class Rays(Op):
    def shape(self, inputs: Sequence[Shape], attributes: Attributes) -> Shape:
        want(not inputs, f"it is a constant and takes no input, not {inputs}")
        want(0 < attributes["fov"] < 180, f"a field of view is between 0 and 180 degrees, not {attributes['fov']}")
        return attributes["rows"], attributes["columns"], 2

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Sequence[Array]], see: Within) -> Any:
        rows, columns = node.shape[:2]
        x = (2 * np.arange(columns) + 1 - columns) / columns
        y = (rows - 1 - 2 * np.arange(rows)) / columns
        both = np.stack(np.broadcast_arrays(x, y[:, None]), -1)
        return (math.tan(math.radians(node.attributes["fov"]) / 2) * both).astype(np.float32)


OP = Rays()
