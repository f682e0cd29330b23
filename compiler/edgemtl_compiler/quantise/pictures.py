"""Pictures to calibrate on: the training split of a labelled data set, any folder of images, or a video."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from edgemtl.config import ModelConfig
from edgemtl.errors import DataError, FrameError
from edgemtl.media.sources import Images, open_source


class Pictures(NamedTuple):
    """uint8 RGB [n, 3, H, W] at the model's size; `labelled` where the folder is a data set in the NYUD_MT layout."""

    images: NDArray[np.uint8]
    labelled: bool


def is_labelled(folder: Path) -> bool:
    """Whether `folder` has the NYUD_MT layout, so that metrics can be measured on its validation split."""
    return (folder / "gt_sets").is_dir()


def pictures(folder: Path, config: ModelConfig, count: int) -> Pictures:
    """Up to `count` images, evenly spaced: over the train split of a data set, a folder's images by name, or a video.

    Whatever `edgemtl run` takes as a file or folder is taken here too, by the same reader; what it leaves out is told
    on stderr. Images of another size are stretched to the model's, as frames are. Raises DataError for a path that does
    not exist or gives no pictures, and for a labelled image that cannot be read.
    """
    if is_labelled(folder):
        from edgemtl.data.dataset import NyudMT

        split = NyudMT(folder, "train", config.task_names)
        files = [split.layout.path(folder, "train", "image", i) for i in split.ids]
        rows = [_sized(split.layout.read_image(files[i]), config.image_size) for i in _spread(len(files), count)]
        return Pictures(np.stack(rows), True)
    if not folder.exists():
        raise DataError(f"{folder} does not exist; give a folder of images, or a data set made by `edgemtl data rooms`")
    try:
        rows, left_out = _unlabelled(folder.absolute(), config.image_size, count)
    except FrameError as e:
        raise DataError(str(e)) from None
    for line in left_out:
        print(f"left out: {line}", file=sys.stderr)
    return Pictures(np.stack(rows), False)


def _unlabelled(path: Path, size: tuple[int, int], count: int) -> tuple[list[NDArray[np.uint8]], list[str]]:
    """Frames evenly spaced (of a video that does not say how many it has the first ones), and what was left out."""
    with open_source(path) as source:
        if isinstance(source, Images):
            source.thin(count)
        wanted = set(_spread(source.count or count, count))
        frames = (f for i, f in enumerate(source) if isinstance(source, Images) or i in wanted)
        return [_sized(frame.image[..., ::-1], size) for frame in frames], source.left_out.lines()


def _spread(whole: int, count: int) -> list[int]:
    """Up to `count` numbers below `whole`, evenly spaced."""
    kept = min(count, whole)
    return [i * whole // kept for i in range(kept)]


def _sized(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    if image.shape[:2] != size:
        shrinks = size[0] < image.shape[0] and size[1] < image.shape[1]
        image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR).astype(
            np.uint8, copy=False
        )
    return np.ascontiguousarray(image.transpose(2, 0, 1))
