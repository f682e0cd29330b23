"""An engine's accuracy on labelled pictures that nothing was trained or calibrated on: a data set's val split.

Runs in a measuring process (`edgemtl.bench.worker` with "score"), through the same call that is timed. Needs PyTorch,
whose metrics are the ones that training reports.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edgemtl.media.preprocess import Array


class Scored(NamedTuple):
    """A task's main metric, as `edgemtl eval` computes it, over so many pictures."""

    metric: str
    value: float
    images: int


def measure(call: Callable[[], Any], image: Array, config: dict[str, Any], task: str, data: str, images: int) -> Scored:
    """call: runs the network on `image`, float32 [1, 3, H, W], which is written to. config: of the model, whose one
    `task` it is; data: in the NYUD_MT layout. Raises DataError, ConfigError for a data set that is missing, damaged or
    of other classes.
    """
    from edgemtl.config import ModelConfig
    from edgemtl.train.data import open_data
    from edgemtl.train.evaluate import evaluate, main_metrics

    whole = ModelConfig.model_validate(config)
    model = ModelConfig(**{**dict(whole), "tasks": (whole.task(task),), "paths": {}, "slots": None})
    shape = (1, whole.task(task).channels, *whole.map_size)

    def predict(picture: Any) -> dict[str, Any]:
        image[...] = picture.numpy()
        return {task: np.array(call(), np.float32).reshape(shape)}

    score = evaluate(predict, open_data(Path(data), "val", model), model, limit=images)
    metric = next(m for m in main_metrics() if m in score[task])
    return Scored(metric, float(score[task][metric]), int(score["images"]["count"]))
