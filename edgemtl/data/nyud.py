"""Loader of the NYUD_MT folder layout: the rooms that `edgemtl data rooms` writes, or the real NYUD-v2 package.

Labels follow the multi-task protocol of Vandenhende et al. (https://arxiv.org/abs/2004.13379), which M3ViT uses: 255
marks pixels without a label in every task, and a zoom divides the depth. Augmentation is a pure function of
(seed, epoch, index), so a resumed training sees the same pictures. `batch` is the fast path; `__getitem__` is a batch
of one, so both give the same numbers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from edgemtl.config import IMAGE_MEAN, IMAGE_STD
from edgemtl.data.nyud_files import Array, read_depth, read_edge, read_image, read_normals, read_segmentation
from edgemtl.errors import ConfigError, DataError

IGNORE = 255
TASKS = ("semseg", "depth", "normals", "edge")
NYUD_CLASSES = 40
ZOOMS = (1.0, 1.2, 1.5)

_SOURCE = {
    "image": ("images", ".jpg"),
    "semseg": ("segmentation", ".png"),
    "depth": ("depth", ".npy"),
    "normals": ("normals", ".npy"),
    "edge": ("edge", ".npy"),
}
_STORED: dict[str, tuple[Any, tuple[int, ...]]] = {  # dtype and channels in memory
    "image": (np.uint8, (3,)),
    "semseg": (np.uint8, ()),
    "depth": (np.float16, ()),
    "normals": (np.float16, (3,)),
    "edge": (np.uint8, ()),
}
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_READERS = {"depth": read_depth, "normals": read_normals, "edge": read_edge}


@dataclass(frozen=True)
class _Change:
    """What is done to one picture: mirror, cut out a part and enlarge it, recolour."""

    flip: bool
    zoom: float
    left: float  # of the room that the cut leaves, 0..1
    top: float
    colour: NDArray[np.float32]  # [3, 4]: RGB in 0..1 and 1 to RGB


def _draw(seed: int, epoch: int, index: int) -> _Change:
    rng = np.random.default_rng(np.random.SeedSequence([seed, epoch, index]))
    flip, zoom = bool(rng.random() < 0.5), ZOOMS[int(rng.integers(len(ZOOMS)))]
    left, top = rng.random(2)
    brightness, contrast, saturation = rng.uniform(0.8, 1.2, 3)
    tint = rng.uniform(0.94, 1.06, 3)
    luma = np.array([0.299, 0.587, 0.114])
    mix = saturation * np.eye(3) + (1 - saturation) * luma  # towards or away from grey
    matrix = np.empty((3, 4), np.float32)
    matrix[:, :3] = mix * (tint * brightness * contrast)[:, None]
    matrix[:, 3] = 0.45 * (1 - contrast)  # contrast pivots about a usual mean
    return _Change(flip, zoom, float(left), float(top), matrix)


class NyudMT(Dataset[dict[str, Tensor]]):
    """One split of a data set in the NYUD_MT layout.

    An item holds "image" float32 [3, H, W], RGB, ImageNet-normalised, and for each of `tasks`: "semseg" int64 [H, W],
    "depth" float32 [1, H, W] in metres, "normals" float32 [3, H, W] (x right, y up, z towards the camera), "edge"
    float32 [1, H, W] in {0, 1}; 255 where there is no label. `size` resizes to (height, width); None keeps the stored
    size. `train` switches augmentation on. `cache` reads the whole split into memory at once (see `preload`).
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        tasks: Sequence[str],
        size: tuple[int, int] | None = None,
        train: bool = False,
        seed: int = 0,
        cache: bool = False,
    ) -> None:
        self.root, self.split, self.tasks, self.train, self.seed = Path(root), split, tuple(tasks), train, seed
        self.epoch = 0
        unknown = [task for task in self.tasks if task not in TASKS]
        if unknown or not self.tasks or len(set(self.tasks)) != len(self.tasks):
            raise ConfigError(f"the tasks are {list(tasks)}; give one or more of {', '.join(TASKS)}, each once")
        if seed < 0:
            raise ConfigError(f"the seed is {seed}; give a whole number from 0 up")
        if size is not None and min(size) < 1:
            raise ConfigError(f"the size is {size}; give (height, width) in pixels, for example (128, 256)")
        self.ids = self._read_ids()
        self.class_count = self._count_classes()
        self._store: dict[str, Array] | None = None
        self.size = size if size is not None else read_image(self._path("image", self.ids[0])).shape[:2]
        self._keep_size = size is None
        if cache:
            self.preload()

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return {name: value[0] for name, value in self.batch([index % len(self)]).items()}

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose augmentation `batch` applies."""
        if epoch < 0:
            raise ConfigError(f"the epoch is {epoch}; give a whole number from 0 up")
        self.epoch = epoch

    def preload(self) -> None:
        """Read the whole split into memory in small types: about 13 bytes per pixel with all four tasks."""
        if self._store is not None:
            return
        store = self._empty(len(self))
        for i in range(len(self)):
            for name, value in self._read(i).items():
                store[name][i] = value
        self._store = store

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Items stacked along a new first axis, augmented if `train`."""
        raw = self._empty(len(indices))
        image = np.empty((len(indices), 3, *self.size), np.float32)
        mean, std = np.array(IMAGE_MEAN, np.float32), np.array(IMAGE_STD, np.float32)
        for k, index in enumerate(int(i) for i in indices):
            item = self._read(index) if self._store is None else {n: v[index] for n, v in self._store.items()}
            change = _draw(self.seed, self.epoch, index) if self.train else None
            if change is not None:
                item = _move(item, change)
            for name in self.tasks:
                raw[name][k] = item[name]
            picture = item["image"].astype(np.float32) / np.float32(255)
            if change is not None:
                picture = np.clip(cv2.transform(picture, change.colour), 0, 1)
            image[k] = ((picture - mean) / std).transpose(2, 0, 1)
        out = {"image": torch.from_numpy(image)}
        out.update((name, torch.from_numpy(_finish(name, raw[name]))) for name in self.tasks)
        return out

    def _empty(self, count: int) -> dict[str, Array]:
        shapes = {name: (count, *self.size, *_STORED[name][1]) for name in ("image", *self.tasks)}
        return {name: np.empty(shape, _STORED[name][0]) for name, shape in shapes.items()}

    def _read_ids(self) -> list[str]:
        path = self.root / "gt_sets" / f"{self.split}.txt"
        try:
            ids = path.read_text(encoding="utf-8").split()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"{path} cannot be read ({error}); give a folder in the NYUD_MT layout with gt_sets/{self.split}.txt, "
                "or make one with `edgemtl data rooms`"
            ) from error
        if not ids:
            raise DataError(f"{path} names no images; make more rooms with `edgemtl data rooms`, or use another split")
        bad = next((name for name in ids if not _NAME.fullmatch(name)), None)
        if bad is not None:
            raise DataError(f"{path} names {bad!r}, which is no image ID; IDs are letters, digits, '_', '-' and '.'")
        return ids

    def _count_classes(self) -> int:
        """From rooms.json, or NYUD's 40."""
        note = self.root / "rooms.json"
        if not note.exists():
            return NYUD_CLASSES
        try:
            classes = json.loads(note.read_text())["classes"]
            if not (isinstance(classes, list) and 0 < len(classes) < IGNORE):
                raise ValueError("'classes' is not a list of names")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{note} cannot be read ({error}); make the rooms again") from error
        return len(classes)

    def _path(self, name: str, image_id: str) -> Path:
        folder, end = _SOURCE[name]
        path = self.root / folder / (image_id + end)
        if not path.is_file():
            raise DataError(f"{path} is missing; the task {name!r} needs it: restore the file or leave the task out")
        return path

    def _read(self, index: int) -> dict[str, Array]:
        """One item as stored in memory, checked and resized."""
        image_id = self.ids[index]
        item: dict[str, Array] = {"image": read_image(self._path("image", image_id))}
        shape = item["image"].shape[:2]
        if self._keep_size and shape != self.size:
            raise DataError(
                f"{self._path('image', image_id)} is {shape[0]}x{shape[1]} but the first image is "
                f"{self.size[0]}x{self.size[1]}; give a size to resize them to"
            )
        for name in self.tasks:
            path = self._path(name, image_id)
            label = read_segmentation(path, self.class_count) if name == "semseg" else _READERS[name](path)
            if label.shape[:2] != shape:
                raise DataError(
                    f"{path} is {label.shape[0]}x{label.shape[1]} but its image is {shape[0]}x{shape[1]}; "
                    "all files of an image must have one size"
                )
            item[name] = label
        if shape != self.size:
            item = {name: _resize(name, value, self.size) for name, value in item.items()}
        return item


def _resize(name: str, value: Array, size: tuple[int, int]) -> Array:
    """Linear for the picture; nearest for labels, which must not mix across an outline."""
    if name == "image":
        shrinks = size[0] < value.shape[0]
        return cv2.resize(value, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    rows = (np.arange(size[0]) * 2 + 1) * value.shape[0] // (2 * size[0])
    columns = (np.arange(size[1]) * 2 + 1) * value.shape[1] // (2 * size[1])
    if name != "edge" or size[0] >= value.shape[0]:
        return value[rows[:, None], columns]
    # a one-pixel line would fall between samples: a small pixel is an edge if any pixel it covers is
    thick = cv2.resize(value.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA)
    return (thick > 1e-4).astype(np.uint8)


def _move(item: dict[str, Array], change: _Change) -> dict[str, Array]:
    """Mirror and zoom the picture and its labels alike; the depth shrinks by the zoom, normals mirror their x."""
    height, width = item["image"].shape[:2]
    out = item
    if change.zoom > 1:
        rows, columns = round(height / change.zoom), round(width / change.zoom)
        y, x = int(change.top * (height - rows + 1)), int(change.left * (width - columns + 1))
        part = (slice(y, y + rows), slice(x, x + columns))
        out = {name: _resize(name, value[part], (height, width)) for name, value in item.items()}
        if "depth" in out:
            out["depth"] = (out["depth"].astype(np.float32) / np.float32(change.zoom)).astype(np.float16)
    if change.flip:
        out = {name: value[:, ::-1] for name, value in out.items()}
        if "normals" in out:
            out["normals"] = out["normals"] * np.array([-1, 1, 1], np.float16)
    return out


def _finish(name: str, raw: Array) -> Array:
    """A batch of stored labels to the protocol's types, with 255 for "no label"."""
    if name == "semseg":
        return np.where(raw == 0, IGNORE, raw.astype(np.int64) - 1)
    if name == "edge":
        return raw[:, None].astype(np.float32)
    value = raw.astype(np.float32)
    if name == "depth":
        return np.where(value > 0, value, np.float32(IGNORE))[:, None]
    valid = (value != 0).any(-1, keepdims=True)
    return np.ascontiguousarray(np.where(valid, value, np.float32(IGNORE)).transpose(0, 3, 1, 2))
