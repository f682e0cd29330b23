"""What training needs of a data set, and the order in which it is read: a pure function of (seed, epoch)."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from edgemtl import tasks as kinds
from edgemtl.config import ModelConfig
from edgemtl.errors import ConfigError
from edgemtl.tasks import INVALID

if TYPE_CHECKING:
    from edgemtl.data.dataset import LabelledSet


class Samples(Protocol):
    """A data set that gives whole batches; `edgemtl.data.dataset.LabelledSet` is one.

    `batch(indices)` has "image" float32 [B, 3, H, W] normalised, and per task what its kind's `target` gives
    (`edgemtl.tasks.Kind`); 255 is invalid. It is a pure function of the index, the data set's seed and the epoch last
    set.

    Partly labelled samples: every task asked for has its tensor in every batch. An image without a label of a task
    holds 255 there at every pixel, so a loss that leaves out 255 needs no more. Beside it "present/TASK", bool [B],
    says which images have a label of the task (see `present`); a data set that labels all may leave the key out.
    "fov", float32 [B], is each image's horizontal field of view in degrees, NaN where only the model's own is known;
    it may be left out, too.
    """

    def __len__(self) -> int: ...

    def set_epoch(self, epoch: int) -> None: ...

    def batch(self, indices: Any) -> dict[str, Tensor]: ...


def open_data(
    root: Path, split: str, config: ModelConfig, *, train: bool = False, seed: int = 0, photo: float = 0.0
) -> LabelledSet:
    """The folder `root` (any layout of `edgemtl.data.layout`) as the model wants it: size, normalisation, camera.

    Raises ConfigError if its classes are not as many as the model's, and what `LabelledSet` raises.
    """
    from edgemtl.data.dataset import LabelledSet

    data = LabelledSet(
        root,
        split,
        config.task_names,
        size=config.image_size,
        train=train,
        seed=seed,
        mean=config.image_mean,
        std=config.image_std,
        fill=config.image_fill,
        fov=config.fov,
        photo=photo,
    )
    for task in config.tasks:
        if data.labels[task.name].kind != task.kind:
            raise ConfigError(f"{root} labels {task.name} as {data.labels[task.name].kind}, the model's is {task.kind}")
        if kinds.find(task.kind).classes and task.channels != data.classes(task.name):
            raise ConfigError(
                f"{root} labels {data.classes(task.name)} classes, the model's {task.name} has {task.channels}; "
                "give the data set that the model was made for"
            )
    return data


def present(batch: Mapping[str, Tensor], task: str) -> Tensor:
    """Which images of a batch have a label of `task`: bool [B]."""
    flags = batch.get(f"present/{task}")
    return torch.ones(len(batch["image"]), dtype=torch.bool) if flags is None else flags


def own_camera(kind: str, value: Tensor, batch: Mapping[str, Tensor], config: ModelConfig) -> Tensor:
    """Distances [B, 1, H, W] in the metres of each image's camera, from those of the model's canonical one; 255 stays,
    and so does what is no distance.

    Labels and predictions are the canonical camera's where the images' field of view is known (see `LabelledSet`), but
    a figure must be in true metres, whatever camera the model was trained for.
    """
    if config.fov is None or "fov" not in batch or not kinds.find(kind).distance:
        return value
    ratio = torch.tan(torch.deg2rad(batch["fov"].double()) / 2) / math.tan(math.radians(config.fov) / 2)
    ratio = torch.nan_to_num(ratio, nan=1.0).view(-1, 1, 1, 1)
    return torch.where(value == INVALID, value, (value.double() / ratio).to(value.dtype))


def spread(data: Samples, count: int) -> list[int]:
    """`count` indices, evenly spaced over the data set; all of them if it is smaller."""
    count = min(count, len(data))
    return [i * len(data) // count for i in range(count)]


def chunks(indices: list[int], size: int) -> list[list[int]]:
    return [indices[i : i + size] for i in range(0, len(indices), size)]


def place(seen: int, batch: int, images: int, seed: int) -> tuple[int, list[int]]:
    """Epoch and indices of the next batch after `seen` images of the run; a batch never crosses an epoch's end."""
    batch = min(batch, images)
    epoch, at = divmod(seen, images)
    if at + batch > images:
        epoch, at = epoch + 1, 0
    order = np.random.Generator(np.random.PCG64([seed, epoch])).permutation(images)
    return epoch, [int(i) for i in order[at : at + batch]]


def advance(seen: int, batch: int, images: int) -> int:
    """`seen` after one more batch, the rest of an epoch too short for it skipped."""
    batch = min(batch, images)
    epoch, at = divmod(seen, images)
    return seen + batch if at + batch <= images else (epoch + 1) * images + batch


def batches(
    data: Samples,
    seen: int,
    batch: int,
    steps: int,
    seed: int,
    share: Callable[[list[int]], list[int]] = lambda indices: indices,
) -> Generator[tuple[int, dict[str, Tensor]], None, None]:
    """The next `steps` batches, each with `seen` after it; one is prepared in a second thread while one is used.

    `share` takes a process's own part of a batch's indices.
    """

    def read(at: int) -> dict[str, Tensor]:
        epoch, indices = place(at, batch, len(data), seed)
        data.set_epoch(epoch)
        return data.batch(share(indices))

    with ThreadPoolExecutor(1, "batches") as pool:
        waiting: Future[dict[str, Tensor]] | None = None
        for step in range(steps):
            current = waiting or pool.submit(read, seen)
            seen = advance(seen, batch, len(data))
            waiting = pool.submit(read, seen) if step + 1 < steps else None
            yield seen, current.result()
