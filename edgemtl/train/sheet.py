"""One picture of what a model does: per image the frame, and for each task the truth above the prediction.

Truth and prediction of a task share their colours; pixels without a label are dark in the truth.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgemtl import tasks
from edgemtl.config import ModelConfig
from edgemtl.errors import DataError
from edgemtl.media import legend, view
from edgemtl.tasks import INVALID
from edgemtl.train.data import Samples, present, spread
from edgemtl.train.evaluate import Predictor
from edgemtl.train.losses import resize

Picture = NDArray[np.uint8]
DARK = 24


def write_sheet(path: Path, predictor: Predictor, data: Samples, config: ModelConfig, images: int = 4) -> None:
    """Write a PNG or JPEG with `images` evenly spaced images of `data`. Raises DataError if it cannot be written."""
    sheet = draw_sheet(predictor, data, config, images)
    try:
        done = cv2.imwrite(str(path), sheet[..., ::-1])
    except cv2.error:
        done = False
    if not done:
        raise DataError(f"{path} cannot be written; give a file ending in .png or .jpg in a folder that exists")


def draw_sheet(predictor: Predictor, data: Samples, config: ModelConfig, images: int = 4) -> Picture:
    """RGB uint8: two rows per image (truth above prediction), a column for the frame and one per task."""
    rows = []
    for index in spread(data, images):
        batch = data.batch([index])
        maps = predictor(batch["image"])
        frame = _frame(batch["image"][0], config)
        upper, lower = [view.label(frame, f"image {index}")], [view.label(_key(config, batch, frame.shape), "classes")]
        for task in config.tasks:
            raw, kind, size = torch.as_tensor(maps[task.name]), tasks.find(task.kind), (frame.shape[0], frame.shape[1])
            truth, labelled = kind.truth(batch[task.name][0].numpy())
            guess = kind.result(resize(raw if raw.ndim == 4 else raw[None], size)[0].numpy(), size)
            limits = _limits(truth, labelled, guess) if kind.unit else None
            known = bool(present(batch, task.name)[0])
            shown = view.colour(task, truth, limits=limits)
            shown[~labelled] = DARK
            upper.append(view.label(shown, f"{task.name}: truth" if known else f"{task.name}: no label"))
            lower.append(view.label(view.colour(task, guess, limits=limits), f"{task.name}: predicted"))
        rows += [np.concatenate(upper, 1), np.concatenate(lower, 1)]
    return np.concatenate(rows)


def _frame(image: Tensor, config: ModelConfig) -> Picture:
    mean, std = np.array(config.image_mean, np.float32), np.array(config.image_std, np.float32)
    return np.clip((image.numpy().transpose(1, 2, 0) * std + mean) * 255 + 0.5, 0, 255).astype(np.uint8)


def _limits(truth: NDArray[Any], labelled: NDArray[np.bool_], guess: NDArray[Any]) -> tuple[float, float]:
    low, high = np.percentile(truth[labelled] if labelled.any() else guess, (2, 98))
    return float(low), float(max(high, low + 1e-3))


def _key(config: ModelConfig, batch: dict[str, Tensor], shape: tuple[int, ...]) -> Picture:
    """The colours of the classes that the truth shows, as large as a tile."""
    out = np.full(shape, DARK, np.uint8)
    for task in config.tasks:
        if tasks.find(task.kind).classes:
            labels = batch[task.name][0]
            strip = legend.classes(task, labels[labels != INVALID].unique().tolist(), shape[1])[: shape[0]]
            out[: len(strip)] = strip
            break
    return out
