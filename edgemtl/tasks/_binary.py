"""What kinds have in common that answer yes or no per pixel: a logit, and labels of 0 and 1."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgemtl.errors import DataError
from edgemtl.tasks import Array, Kind, resized


class Binary(Kind):
    """The result is a probability."""

    form_on_disk = "it must be [height, width], 1 where the answer is yes and 0 elsewhere"

    def result(self, raw: Sequence[Array] | Array, size: tuple[int, int], out: Array | None = None) -> Array:
        import cv2

        x = resized(raw[0], size, out)
        np.negative(x, out=x)
        cv2.exp(x, dst=x)  # infinite for a very negative logit, and then 1 / (1 + inf) is the right 0
        x += 1
        return np.asarray(np.reciprocal(x, out=x))

    def read(self, path: Path, array: Array) -> Array:
        if not np.isin(self.checked(path, array), (0, 1)).all():
            raise DataError(f"{path} holds values other than 0 and 1; {self.form_on_disk}")
        return array.astype(np.uint8)
