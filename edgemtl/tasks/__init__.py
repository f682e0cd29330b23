"""The kinds of task: one file each, found by its name. A file ends with `KIND = TheKind()`; there is no list to add to.

A kind says what is known of it wherever a model runs: what the raw map means and which result it becomes, what the
result's colours mean, and how labels are stored, moved and drawn. NumPy and OpenCV only. Its loss and its metric are in
`edgemtl/train/tasks`, in a file of the same name. Files that begin with an underscore are no kinds.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import pkgutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgemtl.errors import ConfigError, DataError

Array = np.ndarray[Any, np.dtype[Any]]
Form = Literal["map", "boxes", "points"]
INVALID = 255  # what a label has for training where there is none


class Kind:
    """One kind of task. What it does not say otherwise is a dense map of shares from 0 to 1, drawn in grey.

    Sizes are (height, width). Results and stored labels are channels last, raw maps and labels for training first.
    """

    form: Form = "map"
    channels: int | None = 1  # of the raw map; None: one for each class that the task names
    vector: tuple[int, ...] = ()  # shape of one pixel's result and of its stored label
    dtype: type[np.generic] = np.float32  # of a result
    shows = ""  # what a button says beside the task's name
    words = ""  # what the colours mean, where neither classes nor a scale tell it
    unit = ""  # of a quantity: drawn along a colour map, between limits, with a scale as legend
    ink: tuple[int, int, int] | None = None  # RGB that a share is painted with on the frame, instead of laid over it
    distance = False  # whether results are distances, which a camera's focal length scales
    rays = False  # whether a head may read the direction of each pixel's ray
    usual = 0.0  # near the labels' mean: what the map of a new pyramid head starts at
    stored: type[np.generic] = np.uint8  # of a label in memory
    none = INVALID  # what a stored label has where there is none
    form_on_disk = "it must be [height, width]"

    @property
    def classes(self) -> bool:
        """Whether results are class ids."""
        return self.channels is None

    def shape(self, size: tuple[int, int]) -> tuple[int, ...] | None:
        """Of the result for a frame of `size`; None: that depends on what the frame shows."""
        return (*size, *self.vector) if self.form == "map" else None

    def result(self, raw: Sequence[Array] | Array, size: tuple[int, int], out: Array | None = None) -> Array:
        """The result for a frame of `size` from the part of the raw map float32 [channels, h, w] that covers it.

        A map is of the shape that `shape` tells and of `dtype`; boxes are float32 [n, 6], rows of left, top, right and
        bottom in the frame's pixels, class and score; points float32 [n, 4], rows of x, y, class and score.
        out: a contiguous array that a map is written to.
        """
        return resized(raw[0], size, out)

    def colour(self, result: Array) -> Array:
        """The colours, uint8 RGB [H, W, 3], of a map without classes and unit."""
        return np.repeat(np.clip(result * 255 + 0.5, 0, 255).astype(np.uint8)[..., None], 3, -1)

    def draw(self, result: Array, picture: Array) -> None:
        """Draw boxes or points on `picture`, uint8 RGB [H, W, 3]; where it stays black, a frame shows through."""
        raise NotImplementedError(f"{type(self).__name__} has the form {self.form!r} and no draw")

    def present(self, result: Array) -> list[int]:
        """The classes that a legend names for this result, in their order."""
        return []

    def agreement(self, got: Array, want: Array) -> float:
        """How far two raw maps agree, 1 when they are equal: 1 - RMS of the difference / RMS of `want` in float64."""
        return 1 - float(np.sqrt(np.square(got - want).mean() / max(float(np.square(want).mean()), 1e-12)))

    def read(self, path: Path, array: Array) -> Array:
        """A label in the form it has in memory, from the array of numbers in a file.

        Raises DataError, which names the file and the form it should have.
        """
        return self.checked(path, array).astype(self.stored)

    def checked(self, path: Path, array: Array) -> Array:
        """The array of a file as it is. Raises DataError for another shape and for values that are not finite."""
        if array.ndim != 2 + len(self.vector) or array.shape[2:] != self.vector:
            raise DataError(f"{path} has the shape {array.shape}; {self.form_on_disk}")
        return finite(path, array, self.form_on_disk)

    def mirrored(self, label: Array) -> Array:
        """A stored label whose picture has been mirrored, beside the move of its pixels."""
        return label

    def turned(self, label: Array, degrees: float, variant: str) -> Array:
        """A stored label whose picture has been turned counter-clockwise, beside the move of its pixels.

        `variant` is the one of the set's `edgemtl.data.form.Label`.
        """
        return label

    def shrunk(self, label: Array, small: Array) -> Array:
        """A stored label made smaller; `small` has each small pixel's middle."""
        return small

    def factor(self, zoom: float, variant: str) -> float:
        """What values are multiplied by in a picture zoomed by `zoom`."""
        return 1.0

    def target(self, label: Array) -> Array:
        """Stored labels [B, H, W] and `vector` as training has them: float32 [B, channels, H, W], INVALID for none."""
        value = label.astype(np.float32)
        if not self.vector:
            return np.where(value != self.none, value, np.float32(INVALID))[:, None]
        known = (value != self.none).any(-1, keepdims=True)
        return np.ascontiguousarray(np.where(known, value, np.float32(INVALID)).transpose(0, 3, 1, 2))

    def truth(self, target: Array) -> tuple[Array, Array]:
        """One label for training as a result that can be drawn, and where it is valid, bool [H, W]."""
        known = (target != INVALID).all(0)
        values = np.where(known, target, 0).astype(np.float32)
        return (values.transpose(1, 2, 0) if self.vector else values[0]), known


def resized(plane: Array, size: tuple[int, int], out: Array | None = None) -> Array:
    """One plane, bilinear between pixel centres, at another size; written to `out` if there is one."""
    import cv2

    return np.asarray(cv2.resize(np.ascontiguousarray(plane), size[::-1], dst=out, interpolation=cv2.INTER_LINEAR))


def finite(path: Path, array: Array, what: str) -> Array:
    """The array as it is. Raises DataError if it holds NaN or infinity."""
    bad = int((~np.isfinite(array)).sum())
    if bad:
        raise DataError(f"{path} holds {bad} values that are not finite; {what}")
    return array


@functools.cache
def names() -> tuple[str, ...]:
    """Every kind there is."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")))


def find(name: str) -> Kind:
    """The kind called `name`. Raises ConfigError, with the nearest spelling."""
    if name not in names():
        near = difflib.get_close_matches(name, names(), 1, 0.5)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ConfigError(f"there is no kind of task {name!r}{hint}; edgemtl/tasks has {', '.join(names())}")
    kind = importlib.import_module(f"{__name__}.{name}").KIND
    assert isinstance(kind, Kind)
    return kind
