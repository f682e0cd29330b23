"""Cityscapes at 128x256 with 7 classes and inverse depth, as arrays: MTAN's form (Liu et al., CVPR 2019).

"Depth" is a disparity, larger when nearer, so a zoom multiplies it. (The published loaders divide it, as if it were a
distance.)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgemtl.data.files import Array, class_labels, read_npy
from edgemtl.data.form import About, Label, Layout
from edgemtl.errors import DataError
from edgemtl.tasks import finite
from edgemtl.tasks.depth import INVERSE

CLASSES = 7
_FOLDERS = {"image": "image", "semseg": "label_7", "depth": "depth"}


class Cityscapes(Layout):
    name = "cityscapes"
    title = "Cityscapes (128x256 arrays)"
    lists = "{train,val}/image/: the images of a split, numbered from 0"
    image = "{train,val}/image/N.npy: RGB, numbers [H, W, 3] from 0 to 1"
    labels = {  # noqa: RUF012
        "semseg": Label("semseg", "{train,val}/label_7/N.npy: numbers [H, W], class 0-6, -1 = no label", CLASSES),
        "depth": Label(
            "depth",
            "{train,val}/depth/N.npy: numbers [H, W] or [H, W, 1], inverse depth, 0 = no label",
            variant=INVERSE,
        ),
    }

    def matches(self, root: Path) -> bool:
        return any((root / split / "image").is_dir() for split in ("train", "val"))

    def ids(self, root: Path, split: str) -> list[str]:
        folder = root / split / "image"
        numbers = sorted(int(p.stem) for p in folder.glob("*.npy") if p.stem.isascii() and p.stem.isdigit())
        if not numbers:
            raise DataError(f"{folder} holds no images; the Cityscapes layout has {split}/image/0.npy, 1.npy, ...")
        return [str(number) for number in numbers]

    def path(self, root: Path, split: str, name: str, image_id: str) -> Path:
        return root / split / _FOLDERS[name] / f"{image_id}.npy"

    def about(self, root: Path) -> About:
        official = {"train": (2975, "official training images"), "val": (500, "official validation images")}
        return About("Cityscapes", official=official)

    def read_image(self, path: Path) -> Array:
        array = read_npy(path)
        what = "an image is numbers [height, width, 3] from 0 to 1"
        if array.ndim != 3 or array.shape[2] != 3:
            raise DataError(f"{path} has the shape {array.shape}; {what}")
        if array.size and (finite(path, array, what).min() < 0 or array.max() > 1):
            raise DataError(f"{path} holds values from {array.min():g} to {array.max():g}; {what}")
        return (array * 255 + 0.5).astype(np.uint8)

    def read(self, root: Path, task: str, path: Path) -> Array:
        array = read_npy(path)
        if task == "semseg":
            return class_labels(path, array, CLASSES, 0, -1)
        what = "inverse depth is [height, width], from 0 (no label) up"
        if array.ndim != 2:
            raise DataError(f"{path} has the shape {array.shape}; {what}")
        if array.size and (finite(path, array, what).min() < 0 or array.max() > 60000):
            raise DataError(f"{path} holds values from {array.min():g} to {array.max():g}; {what}")
        return array.astype(np.float16)
