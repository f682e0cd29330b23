"""Augmentation that keeps the labels' geometry true, as a pure function of (seed, epoch, index).

What a move changes in the labels beside their place (distances in a zoomed picture, directions in a mirrored or turned
one) their kind says (`edgemtl.tasks`).

Depth is learnt for one camera, the canonical one, because a picture alone does not say how far away a thing is: half as
large may be twice as far or seen with half the focal length. `depth_ratio` takes labels of another camera there, as Yin
et al. (Metric3D, ICCV 2023) do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edgemtl import tasks
from edgemtl.data.files import Array
from edgemtl.data.form import Augmentation, Label

IMAGE_FILL = (124, 116, 104)  # RGB bytes that ImageNet's normalisation takes to 0


@dataclass(frozen=True)
class Change:
    """What is done to one picture: mirror, enlarge or shrink, cut out or rotate, recolour."""

    flip: bool
    zoom: float
    left: float  # of the room that the cut leaves, 0..1
    top: float
    colour: NDArray[np.float32]  # [3, 4]: RGB in 0..1 and 1 to RGB
    degrees: float = 0.0  # counter-clockwise as seen


def draw(policy: Augmentation, seed: int, epoch: int, index: int) -> Change:
    """The change of one picture in one epoch."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, epoch, index]))
    flip = bool(rng.random() < 0.5)
    if policy.between:
        zoom = float(rng.uniform(policy.zooms[0], policy.zooms[1]))
    else:
        zoom = policy.zooms[int(rng.integers(len(policy.zooms)))]
    left, top = rng.random(2)
    brightness, contrast, saturation = rng.uniform(0.8, 1.2, 3)
    tint = rng.uniform(0.94, 1.06, 3)
    luma = np.array([0.299, 0.587, 0.114])
    mix = saturation * np.eye(3) + (1 - saturation) * luma  # towards or away from grey
    matrix = np.empty((3, 4), np.float32)
    matrix[:, :3] = mix * (tint * brightness * contrast)[:, None]
    matrix[:, 3] = 0.45 * (1 - contrast)  # contrast pivots about a usual mean
    degrees = float(rng.uniform(-policy.degrees, policy.degrees))
    return Change(flip, zoom, float(left), float(top), matrix, degrees)


def depth_ratio(fov: float, canonical: float) -> float:
    """What depth seen with the horizontal field of view `fov` is multiplied by; both in degrees.

    That is f_canonical / f for pictures of one width. An object at distance Z seen with the focal length f is as large
    in the picture as one at Z · f_canonical / f seen with the canonical one, and a network can only go by its size.
    """
    return math.tan(math.radians(fov) / 2) / math.tan(math.radians(canonical) / 2)


def move(
    item: Mapping[str, Array], labels: Mapping[str, Label], change: Change, fill: tuple[int, int, int] = IMAGE_FILL
) -> dict[str, Array]:
    """Picture and labels of an item, moved alike; the picture's colours stay.

    `item` has "image" and the labels, in the form they have in memory; `labels` says what each is. Without a rotation
    a part is cut out and enlarged; with one, or when shrunk, the picture turns about its middle; what comes in from
    outside has the colour `fill` (RGB bytes) and no labels.
    """
    height, width = item["image"].shape[:2]
    out = dict(item)
    if change.degrees or change.zoom < 1:
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), change.degrees, change.zoom)
        out = {name: _warp(value, labels.get(name), matrix, fill) for name, value in item.items()}
    elif change.zoom > 1:
        rows, columns = round(height / change.zoom), round(width / change.zoom)
        y, x = int(change.top * (height - rows + 1)), int(change.left * (width - columns + 1))
        part = (slice(y, y + rows), slice(x, x + columns))
        out = {name: resize(value[part], labels.get(name), (height, width)) for name, value in item.items()}
    if change.flip:
        out = {name: value[:, ::-1] for name, value in out.items()}
    for name, label in labels.items():
        kind = tasks.find(label.kind)
        if (factor := kind.factor(change.zoom, label.variant)) != 1:
            out[name] = (out[name].astype(np.float32) * np.float32(factor)).astype(kind.stored)
        if change.degrees:
            out[name] = kind.turned(out[name], change.degrees, label.variant)
        if change.flip:
            out[name] = kind.mirrored(out[name])
    return out


def resize(value: Array, label: Label | None, size: tuple[int, int]) -> Array:
    """Linear for the picture (`label` None); nearest for labels, which must not mix across an outline."""
    if label is None:
        shrinks = size[0] < value.shape[0]
        return cv2.resize(value, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    rows = (np.arange(size[0]) * 2 + 1) * value.shape[0] // (2 * size[0])
    columns = (np.arange(size[1]) * 2 + 1) * value.shape[1] // (2 * size[1])
    out = np.asarray(value[rows[:, None], columns])
    return tasks.find(label.kind).shrunk(value, out) if size[0] < value.shape[0] else out


def _warp(value: Array, label: Label | None, matrix: NDArray[np.float64], fill: tuple[int, int, int]) -> Array:
    """Move by a 2x3 matrix within the same size."""
    size = (value.shape[1], value.shape[0])
    if label is None:
        return cv2.warpAffine(value, matrix, size, flags=cv2.INTER_LINEAR, borderValue=fill)
    wide = value.astype(np.float32) if value.dtype == np.float16 else value
    none = tasks.find(label.kind).none
    moved = cv2.warpAffine(wide, matrix, size, flags=cv2.INTER_NEAREST, borderValue=(none, none, none))
    return np.asarray(moved, value.dtype)
