"""From a raw map at a quarter of the input's size to the result that the user gets, at the frame's size."""

from __future__ import annotations

from edgemtl import tasks
from edgemtl.config import TaskConfig
from edgemtl.media.preprocess import Geometry
from edgemtl.tasks import Array


def to_frame(task: TaskConfig, raw: Array, place: Geometry, stride: int, out: Array | None = None) -> Array:
    """The result of `task` (`edgemtl.tasks.Kind.result`), from raw [channels, h, w] with cells of `stride` pixels.

    out: where to write a map, a contiguous array; None: a new array.
    """
    top, left = place.top // stride, place.left // stride
    cut = raw[:, top : top + place.height // stride, left : left + place.width // stride]
    return tasks.find(task.kind).result(cut, place.frame, out)
