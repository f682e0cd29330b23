"""Outlines of things, as a probability. They are painted on a frame."""

from __future__ import annotations

import numpy as np

from edgemtl.tasks import Array
from edgemtl.tasks._binary import Binary


class Edge(Binary):
    shows = "outlines"
    words = "white: an edge"
    ink = (255, 224, 0)

    def shrunk(self, label: Array, small: Array) -> Array:
        """A one-pixel line would fall between samples: a small pixel is an edge if any pixel it covers is."""
        import cv2

        size = small.shape[1::-1]
        thick = cv2.resize((label == 1).astype(np.float32), size, interpolation=cv2.INTER_AREA)
        return np.where((thick > 1e-4) & (small != self.none), 1, small).astype(np.uint8)


KIND = Edge()
