"""One split of a labelled folder, in any known layout, as batches for PyTorch.

255 marks pixels without a label in every task. Augmentation is a pure function of (seed, epoch, index), so a resumed
training sees the same pictures. `batch` is the fast path; `__getitem__` is a batch of one, so both give the same
numbers.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from edgemtl import tasks as kinds
from edgemtl.config import IMAGE_MEAN, IMAGE_STD
from edgemtl.data.augment import IMAGE_FILL, depth_ratio, draw, move, resize
from edgemtl.data.files import Array
from edgemtl.data.form import Label, Layout
from edgemtl.data.layout import find_layout
from edgemtl.data.nyud import Nyud
from edgemtl.data.photo import draw_shot, take
from edgemtl.errors import ConfigError, DataError


class LabelledSet(Dataset[dict[str, Tensor]]):
    """One split of a data set, or a part of it such as "train:hold"; `layout` is found in the folder unless given.

    An item holds "image" float32 [3, H, W], RGB, (pixel / 255 - mean) / std, and for each of `tasks` what its kind's
    `target` gives (classes int64 [H, W], others float32 [channels, H, W]; 255 where there is no label); "present/TASK",
    bool, false where the whole image has none; and "fov", float32, the image's horizontal field of view in degrees,
    NaN where it is not known. A label whose file is
    missing is no error as long as other images have one: `missing` counts them, and whoever trains or evaluates says
    so. `size` resizes to (height, width); None keeps the stored size. `train` switches augmentation on; a border from
    outside the picture is then `fill`, RGB bytes, and `photo`, 0 to 1, says how often the picture is made worse as a
    camera would (`edgemtl.data.photo`). `cache` reads the whole split into memory at once (see `preload`).
    With `fov`, the canonical camera's degrees, depth is what that camera would say (`edgemtl.data.augment.depth_ratio`)
    for every image whose own field of view is known; with None it stays as stored.
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
        layout: Layout | None = None,
        mean: tuple[float, float, float] = IMAGE_MEAN,
        std: tuple[float, float, float] = IMAGE_STD,
        fill: tuple[int, int, int] = IMAGE_FILL,
        fov: float | None = None,
        photo: float = 0.0,
    ) -> None:
        self.root, self.split, self.tasks, self.train, self.seed = Path(root), split, tuple(tasks), train, seed
        self.mean, self.std, self.fill, self.fov, self.photo = mean, std, fill, fov, photo
        self.epoch = 0
        self.layout = layout or find_layout(self.root)
        known = self.layout.labels
        names = {task: self.layout.aliases.get(task, task) for task in self.tasks}
        if not names or len(set(names.values())) != len(self.tasks) or not set(names.values()) <= set(known):
            raise ConfigError(
                f"the tasks are {list(tasks)}; give one or more of {', '.join(known)}, each once: those are what "
                f"{self.layout.title} labels"
            )
        if seed < 0:
            raise ConfigError(f"the seed is {seed}; give a whole number from 0 up")
        if not 0 <= photo <= 1:
            raise ConfigError(f"photo is {photo}; give a number from 0 to 1")
        if size is not None and min(size) < 1:
            raise ConfigError(f"the size is {size}; give (height, width) in pixels, for example (128, 256)")
        self._names, self.labels = names, {task: known[name] for task, name in names.items()}
        self._whole, self.ids = self.layout.part(self.root, split)
        self.missing = self._count_missing()
        self._store: dict[str, Array] | None = None
        self._fovs = np.zeros(len(self.ids), np.float32)  # degrees or NaN; 0: not read yet
        self.size = size if size is not None else self.layout.read_image(self._path("image", 0)).shape[:2]
        self._keep_size = size is None
        if cache:
            self.preload()

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return {name: value[0] for name, value in self.batch([index % len(self)]).items()}

    def classes(self, task: str) -> int:
        """How many classes a task has, if its kind has some."""
        return self.layout.classes(self.root, self._names[task])

    def stored_size(self) -> tuple[int, int] | None:
        """Height and width of the images' files, from up to 20 of them; None if they differ."""
        some = range(0, len(self), -(-len(self) // 20))
        sizes = [self.layout.read_image(self._path("image", i)).shape[:2] for i in some]
        return (sizes[0][0], sizes[0][1]) if len(set(sizes)) == 1 else None

    def reports(self) -> list[str]:
        """One sentence per task that some images have no label of."""
        return [
            f"{count} of {len(self)} images of {self.root}, {self.split}, have no {task} label and count nothing for it"
            for task, count in self.missing.items()
        ]

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose augmentation `batch` applies."""
        if epoch < 0:
            raise ConfigError(f"the epoch is {epoch}; give a whole number from 0 up")
        self.epoch = epoch

    def preload(self) -> None:
        """Read the whole split into memory in small types, once.

        With NYUD's four tasks a pixel takes 13 bytes: 20,000 images of 192x256 take 12.8 GB.
        """
        if self._store is not None:
            return
        store = self._empty(len(self))
        for i in range(len(self)):
            self._own_fov(i)  # a bad note must be told before training begins
            for name, value in self._read(i).items():
                store[name][i] = value
        self._store = store

    def plain(self) -> LabelledSet:
        """The same images without augmentation; what is in memory is shared, not read again."""
        other = copy.copy(self)
        other.train = False
        return other

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Items stacked along a new first axis, augmented if `train`."""
        raw = self._empty(len(indices), "image")
        image = np.empty((len(indices), 3, *self.size), np.float32)
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        for k, index in enumerate(int(i) for i in indices):
            item = self._read(index) if self._store is None else {n: v[index] for n, v in self._store.items()}
            change = draw(self.layout.augmentation, self.seed, self.epoch, index) if self.train else None
            if change is not None:
                item = move(item, self.labels, change, self.fill)
                if self.photo:
                    item["image"] = take(item["image"], draw_shot(self.photo, self.seed, self.epoch, index))
            for name in self.tasks:
                raw[name][k] = item[name]
            picture = item["image"].astype(np.float32) / np.float32(255)
            if change is not None:
                picture = np.clip(cv2.transform(picture, change.colour), 0, 1)
            image[k] = ((picture - mean) / std).transpose(2, 0, 1)
        out = {"image": torch.from_numpy(image)}
        for name, label in self.labels.items():
            kind = kinds.find(label.kind)
            labelled = (raw[name] != kind.none).reshape(len(indices), -1).any(1)
            done = kind.target(raw[name])
            if kind.distance:
                ratio = np.array([self._ratio(int(i), label) for i in indices], np.float32)
                done = np.where(done != kinds.INVALID, done * ratio.reshape(-1, 1, 1, 1), done)
            out[name] = torch.from_numpy(done)
            out[f"present/{name}"] = torch.from_numpy(labelled)
        return out | {"fov": torch.tensor([self._own_fov(int(i)) for i in indices], dtype=torch.float32)}

    def _empty(self, count: int, without: str = "") -> dict[str, Array]:
        forms: dict[str, Any] = {"image": (np.uint8, (3,))}
        for task, label in self.labels.items():
            forms[task] = (kind := kinds.find(label.kind)).stored, kind.vector
        return {n: np.empty((count, *self.size, *shape), dtype) for n, (dtype, shape) in forms.items() if n != without}

    def _own_fov(self, index: int) -> float:
        """Degrees; NaN where it is not known. Read once."""
        if not self._fovs[index]:
            fov = self.layout.fov(self.root, self._whole, self.ids[index])
            self._fovs[index] = math.nan if fov is None else fov
        return float(self._fovs[index])

    def _ratio(self, index: int, label: Label) -> float:
        """What the distances of one image are multiplied by."""
        own = self._own_fov(index)
        if self.fov is None or math.isnan(own):
            return 1.0
        return kinds.find(label.kind).factor(1 / depth_ratio(own, self.fov), label.variant)

    def _path(self, name: str, index: int) -> Path:
        return self.layout.path(self.root, self._whole, self._names.get(name, name), self.ids[index])

    def _count_missing(self) -> dict[str, int]:
        """{task: images without a file of its labels}. Every image must be there, and of each task one label."""
        images = [path for i in range(len(self.ids)) if not (path := self._path("image", i)).is_file()]
        if images:
            raise DataError(
                f"{images[0]} is missing, and {len(images)} of {len(self.ids)} images of the split {self.split!r} are; "
                "restore them, or take them out of the list"
            )
        missing = {}
        for task in self.tasks:
            lost = [path for i in range(len(self.ids)) if not (path := self._path(task, i)).is_file()]
            if len(lost) == len(self.ids):
                raise DataError(
                    f"{lost[0]} is missing, and so is every other file of the task {task!r} in the split "
                    f"{self.split!r}; restore them, or leave the task out"
                )
            if lost:
                missing[task] = len(lost)
        return missing

    def _read(self, index: int) -> dict[str, Array]:
        """One item as stored in memory, checked and resized."""
        where = self._path("image", index)
        item: dict[str, Array] = {"image": self.layout.read_image(where)}
        shape = item["image"].shape[:2]
        if self._keep_size and shape != self.size:
            raise DataError(
                f"{where} is {shape[0]}x{shape[1]} but the first image is {self.size[0]}x{self.size[1]}; "
                "give a size to resize them to"
            )
        for task, label in self.labels.items():
            path = self._path(task, index)
            if not path.is_file():
                kind = kinds.find(label.kind)
                item[task] = np.full((*shape, *kind.vector), kind.none, kind.stored)
                continue
            item[task] = self.layout.read(self.root, self._names[task], path)
            if item[task].shape[:2] != shape:
                found = item[task].shape
                raise DataError(
                    f"{path} is {found[0]}x{found[1]} but its image is {shape[0]}x{shape[1]}; "
                    "all files of an image must have one size"
                )
        if shape != self.size:
            item = {name: resize(value, self.labels.get(name), self.size) for name, value in item.items()}
        return item


class NyudMT(LabelledSet):
    """A `LabelledSet` that is known to have the NYUD_MT layout."""

    def __init__(self, root: str | Path, split: str, tasks: Any, **options: Any) -> None:
        super().__init__(root, split, tasks, layout=Nyud(), **options)
