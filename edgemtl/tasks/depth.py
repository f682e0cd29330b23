"""Distance along the camera's axis: metres, 0 or more."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgemtl.errors import DataError
from edgemtl.tasks import Array, Kind, resized

MOST = 200  # metres in a label
INVERSE = "inverse"  # variant of labels: 1 / distance, larger when nearer


class Depth(Kind):
    shows = "how far"
    unit = "m"
    distance = True
    usual = 2.5  # metres; near the mean of rooms and of NYU Depth V2
    stored = np.float16
    none = 0
    form_on_disk = "depth is [height, width] in metres, 0 where there is none"

    def result(self, raw: Sequence[Array] | Array, size: tuple[int, int], out: Array | None = None) -> Array:
        metres = resized(raw[0], size, out)
        return np.asarray(np.maximum(metres, 0, out=metres))

    def read(self, path: Path, array: Array) -> Array:
        if self.checked(path, array).size and (array.max() > MOST or array.min() < 0):
            worst = array.max() if array.max() > MOST else array.min()
            raise DataError(f"{path} holds a depth of {worst:.6g}; {self.form_on_disk}, up to {MOST}")
        return array.astype(np.float16)

    def factor(self, zoom: float, variant: str) -> float:
        """A picture zoomed by z is what the same camera sees when all distances along its axis are divided by z.

        (Slanted surfaces would turn a little, too; normals stay, as in all published recipes.)
        """
        return zoom if variant == INVERSE else 1 / zoom


KIND = Depth()
