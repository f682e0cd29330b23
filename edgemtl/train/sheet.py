"""One picture of what a model does: per image the frame, and for each task the truth above the prediction.

Truth and prediction of a task share their colours; pixels without a label are dark in the truth.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from edgemtl.config import ModelConfig, TaskConfig
from edgemtl.errors import DataError
from edgemtl.media import legend, view
from edgemtl.train.data import Samples, present, spread
from edgemtl.train.evaluate import Predictor
from edgemtl.train.losses import INVALID, resize

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
            raw = torch.as_tensor(maps[task.name])
            raw = resize(raw if raw.ndim == 4 else raw[None], (frame.shape[0], frame.shape[1]))
            truth, labelled = _truth(task, batch[task.name][0])
            guess = _prediction(task, raw[0])
            limits = _limits(truth, labelled, guess) if task.kind == "depth" else None
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


def _truth(task: TaskConfig, label: Tensor) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """A label in the form that `view.colour` draws, and where it is valid."""
    values = label.numpy()
    if task.kind == "semseg":
        return np.where(values == INVALID, 0, values).astype(np.uint8), values != INVALID
    valid = (values != INVALID).all(0)
    values = np.where(valid, values, 0).astype(np.float32)
    return (values.transpose(1, 2, 0) if task.kind == "normals" else values[0]), valid


def _prediction(task: TaskConfig, raw: Tensor) -> NDArray[Any]:
    """A raw map [C, H, W] in the form that `view.colour` draws."""
    if task.kind == "semseg":
        return raw.argmax(0).numpy().astype(np.uint8)
    if task.kind == "normals":
        return F.normalize(raw, dim=0).permute(1, 2, 0).numpy()
    return (raw[0].clamp(min=0) if task.kind == "depth" else raw[0].sigmoid()).numpy()


def _limits(truth: NDArray[Any], labelled: NDArray[np.bool_], guess: NDArray[Any]) -> tuple[float, float]:
    low, high = np.percentile(truth[labelled] if labelled.any() else guess, (2, 98))
    return float(low), float(max(high, low + 1e-3))


def _key(config: ModelConfig, batch: dict[str, Tensor], shape: tuple[int, ...]) -> Picture:
    """The colours of the classes that the truth shows, as large as a tile."""
    out = np.full(shape, DARK, np.uint8)
    for task in config.tasks:
        if task.kind == "semseg":
            labels = batch[task.name][0]
            strip = legend.classes(task, labels[labels != INVALID].unique().tolist(), shape[1])[: shape[0]]
            out[: len(strip)] = strip
            break
    return out
