"""Pictures to calibrate on: the training split of a labelled data set, any folder of images, or a video."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from edgemtl.config import ModelConfig
from edgemtl.data.files import read_image
from edgemtl.errors import DataError
from edgemtl.media.sources import IMAGE_SUFFIXES, VIDEO_SUFFIXES, open_source


class Pictures(NamedTuple):
    """uint8 RGB [n, 3, H, W] at the model's size; `labelled` where the folder is a data set in the NYUD_MT layout."""

    images: NDArray[np.uint8]
    labelled: bool


def is_labelled(folder: Path) -> bool:
    """Whether `folder` has the NYUD_MT layout, so that metrics can be measured on its validation split."""
    return (folder / "gt_sets").is_dir()


def pictures(folder: Path, config: ModelConfig, count: int) -> Pictures:
    """Up to `count` images, evenly spaced: over the train split of a data set, a folder's images by name, or a video.

    Images of another size are stretched to the model's, as frames are. Raises DataError for a folder that is missing,
    is none or holds no images, and for an image that cannot be read; FrameError for such a video.
    """
    if folder.is_file() and folder.suffix.lower() in VIDEO_SUFFIXES:
        return Pictures(np.stack(_of_video(folder, config.image_size, count)), False)
    if not folder.is_dir():
        what = "is no folder and no video" if folder.exists() else "does not exist"
        raise DataError(f"{folder} {what}; give a folder of images, or a data set made by `edgemtl data rooms`")
    if is_labelled(folder):
        from edgemtl.data.dataset import NyudMT

        files = [folder / "images" / f"{i}.jpg" for i in NyudMT(folder, "train", config.task_names).ids]
    else:
        files = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        if not files:
            raise DataError(f"{folder} holds no images ({', '.join(IMAGE_SUFFIXES)}); give a folder that has some")
    kept = min(count, len(files))
    rows = [_sized(read_image(files[i * len(files) // kept]), config.image_size) for i in range(kept)]
    return Pictures(np.stack(rows), is_labelled(folder))


def _of_video(path: Path, size: tuple[int, int], count: int) -> list[NDArray[np.uint8]]:
    """Frames evenly spaced over the video; the first ones, where it does not say how many it has."""
    with open_source(path) as video:
        whole = video.count or count
        kept = min(count, whole)
        wanted = {i * whole // kept for i in range(kept)}
        return [_sized(frame.image[..., ::-1], size) for i, frame in enumerate(video) if i in wanted]


def _sized(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    if image.shape[:2] != size:
        shrinks = size[0] < image.shape[0] and size[1] < image.shape[1]
        image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR).astype(
            np.uint8, copy=False
        )
    return np.ascontiguousarray(image.transpose(2, 0, 1))
