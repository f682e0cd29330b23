"""From a raw map at a quarter of the input's size to the map that the user gets, at the frame's size.

depth: float32 [H, W], metres, 0 or more. semseg: uint8 [H, W], class ids; the logits are resized, then compared, so
that borders are smooth. normals: float32 [H, W, 3], unit length. edge, saliency: float32 [H, W], probability.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from edgemtl.config import TaskConfig
from edgemtl.media.preprocess import Array, Geometry, Image

Map = np.ndarray[Any, np.dtype[Any]]


def map_form(task: TaskConfig, frame: tuple[int, int]) -> tuple[tuple[int, ...], type[np.generic]]:
    """Shape and type of the map of `task` for a frame of (H, W)."""
    if task.kind == "semseg":
        return frame, np.uint8
    return ((*frame, 3) if task.kind == "normals" else frame), np.float32


def to_frame(task: TaskConfig, raw: Array, place: Geometry, stride: int, out: Map | None = None) -> Map:
    """The map of `task` at the frame's size, from raw [channels, h, w] with cells of `stride` pixels.

    out: where to write it, a contiguous array of the form that `map_form` gives; None: a new array.
    """
    top, left = place.top // stride, place.left // stride
    cut = raw[:, top : top + place.height // stride, left : left + place.width // stride]
    height, width = place.frame
    planes = (np.ascontiguousarray(plane) for plane in cut)
    if task.kind == "semseg":
        return _classes(planes, np.empty((height, width), np.uint8) if out is None else out)
    if task.kind == "normals":
        sized = [cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR) for plane in planes]
        return _unit(sized, np.empty((height, width, 3), np.float32) if out is None else out)
    one: Array = np.empty((height, width), np.float32) if out is None else out
    cv2.resize(next(planes), (width, height), dst=one, interpolation=cv2.INTER_LINEAR)
    if task.kind in ("edge", "saliency"):
        return _sigmoid(one)
    depth: Map = np.maximum(one, 0, out=one)
    return depth


def _classes(planes: Any, out: Image) -> Image:
    """The class with the largest logit, the lower one where they are equal; plane by plane, in little memory."""
    height, width = out.shape
    best = np.full((height, width), -np.inf, np.float32)
    sized, wins, number = np.empty_like(best), np.empty_like(out), np.empty_like(out)
    out.fill(0)
    for c, plane in enumerate(planes):
        cv2.resize(plane, (width, height), dst=sized, interpolation=cv2.INTER_LINEAR)
        cv2.compare(sized, best, cv2.CMP_GT, dst=wins)  # 255 where this class wins
        cv2.max(sized, best, dst=best)
        number.fill(c)  # a plane: OpenCV takes small images for scalars when the other side is one
        cv2.min(wins, number, dst=wins)  # its number there, 0 elsewhere
        cv2.max(out, wins, dst=out)  # numbers ascend, so the newest winner's is the largest
    return out


def _unit(sized: list[Array], out: Array) -> Array:
    """Three planes as vectors of length 1; a zero vector becomes (0, 0, 1), towards the camera."""
    x, y, z = sized
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


def _sigmoid(x: Array) -> Array:
    np.negative(x, out=x)
    cv2.exp(x, dst=x)  # infinite for a very negative logit, and then 1 / (1 + inf) is the right 0
    x += 1
    y: Array = np.reciprocal(x, out=x)
    return y
