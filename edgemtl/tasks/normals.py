"""Directions of surfaces: unit vectors with x right, y up, z towards the camera."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgemtl.errors import DataError
from edgemtl.tasks import Array, Kind, resized

Y_DOWN = "y_down"  # variant of labels: they count y downwards


class Normals(Kind):
    channels = 3
    vector = (3,)
    shows = "directions"
    words = "red: right   green: up   blue: towards the camera"
    rays = True
    stored = np.float16
    none = 0
    form_on_disk = "normals are [height, width, 3] of length 1, zero where there is none"

    def result(self, raw: Sequence[Array] | Array, size: tuple[int, int], out: Array | None = None) -> Array:
        """Three planes as vectors of length 1; a zero vector becomes (0, 0, 1), towards the camera."""
        import cv2

        out = np.empty((*size, 3), np.float32) if out is None else out
        x, y, z = sized = [resized(plane, size) for plane in raw]
        length = x * x
        length += y * y
        length += z * z
        np.sqrt(length, out=length)
        flat = length < 1e-12
        if flat.any():
            z[flat], length[flat] = 1, 1
        for plane in sized:
            np.divide(plane, length, out=plane)
        cv2.merge(sized, dst=out)
        return out

    def colour(self, result: Array) -> Array:
        """x, y, z in red, green, blue."""
        return np.clip((result + 1) * 127.5 + 0.5, 0, 255).astype(np.uint8)

    def read(self, path: Path, array: Array) -> Array:
        vectors = self.checked(path, array).astype(np.float32)
        length = np.sqrt((vectors * vectors).sum(-1, keepdims=True))
        if (length > 2).any():
            raise DataError(f"{path} holds a normal of length {length.max():.6g}; {self.form_on_disk}")
        unit: Array = np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0.5)
        return unit.astype(np.float16)

    def mirrored(self, label: Array) -> Array:
        return np.asarray(label * np.array([-1, 1, 1], np.float16))

    def turned(self, label: Array, degrees: float, variant: str) -> Array:
        turn = np.radians(-degrees if variant == Y_DOWN else degrees)
        c, s = np.cos(turn), np.sin(turn)
        matrix = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]], np.float32)
        return (label.astype(np.float32) @ matrix.T).astype(np.float16)


KIND = Normals()
