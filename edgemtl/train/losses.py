"""The tasks' losses: maps and labels brought together, then handed to the kinds (`edgemtl.train.tasks`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from edgemtl.config import TaskConfig
from edgemtl.tasks import INVALID
from edgemtl.train import tasks as learners
from edgemtl.train.config import LossConfig


def subsample(label: Tensor, stride: int, step: int) -> Tensor:
    """Every `stride`-th pixel of [..., H, W]; the offset walks with `step`, so that no pixel is left out for good."""
    dy, dx = step % stride, step // stride % stride
    return label[..., dy::stride, dx::stride] if stride > 1 else label


def resize(raw: Tensor, size: tuple[int, int]) -> Tensor:
    """Raw map [B, C, h, w] in float32, bilinear (pixel centres) to `size`."""
    raw = raw.float()
    return raw if tuple(raw.shape[-2:]) == size else F.interpolate(raw, size, mode="bilinear", align_corners=False)


def class_weights(labels: Tensor, classes: int) -> Tensor:
    """Float32 [classes]: 1 / ln(1.1 + share of pixels), scaled to mean 1, from int64 labels of any shape."""
    counts = torch.bincount(labels[labels != INVALID].flatten(), minlength=classes).double()
    weight = 1 / torch.log(1.1 + counts / counts.sum().clamp(min=1))
    return (weight / weight.mean()).float()


def task_losses(
    maps: Mapping[str, Tensor],
    batch: Mapping[str, Tensor],
    tasks: Mapping[str, TaskConfig],
    options: LossConfig,
    *,
    step: int = 0,
    class_weight: Mapping[str, Tensor] | None = None,
    counted: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """{task: unweighted scalar loss} of raw maps [B, C, h, w] against the labels of the same names in `batch`.

    Means over the batch, or over the whole that `counted` describes, of which the batch then gives its share. A task
    without any valid label has the loss 0 and the gradient 0.
    """
    counted = counted or count_labels(batch, [tasks[t] for t in maps], options, step=step, class_weight=class_weight)
    losses = {}
    for name, raw in maps.items():
        label, weight = subsample(batch[name], options.stride, step), (class_weight or {}).get(name)
        pred = resize(raw, (label.shape[-2], label.shape[-1]))
        losses[name] = learners.find(tasks[name].kind).loss(pred, label, counted[name], options, weight)
    return losses


def count_labels(
    batch: Mapping[str, Tensor],
    tasks: Iterable[TaskConfig],
    options: LossConfig,
    *,
    step: int = 0,
    class_weight: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """{task: `Learner.count`} of a batch, for `task_losses` over several parts of one step."""
    return {
        t.name: learners.find(t.kind).count(
            subsample(batch[t.name], options.stride, step), (class_weight or {}).get(t.name)
        )
        for t in tasks
    }
