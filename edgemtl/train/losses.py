"""Task losses, in float32, at label resolution.

The recipe is M3ViT's (Liang et al., NeurIPS 2022) after Vandenhende et al. (TPAMI 2021): cross-entropy, L1 on depth,
L1 on unit normals, balanced binary cross-entropy on edges with a fixed positive weight, and on saliency with the
batch's own balance. Written from its description. 255 marks invalid pixels throughout.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from edgemtl.config import TaskConfig, TaskKind

INVALID = 255
EDGE_POSITIVE_WEIGHT = 0.95
DEFAULT_WEIGHTS: dict[TaskKind, float] = {
    "semseg": 1.0,
    "depth": 1.0,
    "normals": 10.0,
    "edge": 50.0,
    "saliency": 5.0,
}


class Count(NamedTuple):
    """What a label gives to a mean over a whole step: the sum of its valid pixels' weights, and the positive pixels.

    Counts of the parts of a batch add up, so that parts of it, here or in other processes, give the loss of the whole.
    """

    valid: Tensor
    positive: Tensor


def count(kind: TaskKind, label: Tensor, class_weight: Tensor | None = None) -> Count:
    """The Count of a label as `task_losses` takes it."""
    valid = (label != INVALID).all(1) if kind == "normals" else label != INVALID
    positive = ((label > 0.5) & valid).sum() if kind in ("edge", "saliency") else valid.new_zeros((), dtype=torch.int64)
    if kind == "semseg" and class_weight is not None:
        return Count(class_weight[label[valid]].sum(), positive)
    return Count(valid.sum(), positive)


def _mean(total: Tensor, counted: Count) -> Tensor:
    return total / torch.where(counted.valid > 0, counted.valid, torch.ones_like(counted.valid))


def semseg_loss(
    logits: Tensor, label: Tensor, class_weight: Tensor | None = None, counted: Count | None = None
) -> Tensor:
    """Mean cross-entropy of logits [B, C, H, W] against int64 [B, H, W]; weighted mean with `class_weight` [C]."""
    loss = F.cross_entropy(logits, label, class_weight, ignore_index=INVALID, reduction="sum")
    return _mean(loss, counted or count("semseg", label, class_weight))


def depth_loss(pred: Tensor, label: Tensor, counted: Count | None = None) -> Tensor:
    """Mean |pred - label| in metres over valid pixels; both [B, 1, H, W]."""
    valid = label != INVALID
    return _mean(((pred - label).abs() * valid).sum(), counted or count("depth", label))


def normals_loss(pred: Tensor, label: Tensor, counted: Count | None = None) -> Tensor:
    """Mean absolute difference per component between the unit prediction and the label; both [B, 3, H, W]."""
    valid = (label != INVALID).all(1, keepdim=True)
    difference = (F.normalize(pred, dim=1) - label).abs().sum(1, keepdim=True)
    return _mean((difference * valid).sum() / 3, counted or count("normals", label))


def edge_loss(
    logits: Tensor,
    label: Tensor,
    positive_weight: float | Tensor = EDGE_POSITIVE_WEIGHT,
    counted: Count | None = None,
) -> Tensor:
    """Mean over valid pixels of -w·y·log p - (1 - w)·(1 - y)·log(1 - p); both [B, 1, H, W], label 0 or 1."""
    valid = label != INVALID
    y = torch.where(valid, label, torch.zeros_like(label))
    weight = torch.where(y > 0.5, positive_weight, 1 - positive_weight) * valid
    loss = F.binary_cross_entropy_with_logits(logits, y, weight, reduction="sum")
    return _mean(loss, counted or count("edge", label))


def saliency_loss(logits: Tensor, label: Tensor, counted: Count | None = None) -> Tensor:
    """`edge_loss` with w the share of the valid pixels that are 0 (Xie & Tu, ICCV 2015); both [B, 1, H, W]."""
    counted = counted or count("saliency", label)
    return edge_loss(logits, label, 1 - _mean(counted.positive.float(), counted), counted)


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
    *,
    stride: int = 1,
    step: int = 0,
    class_weight: Mapping[str, Tensor] | None = None,
    counted: Mapping[str, Count] | None = None,
) -> dict[str, Tensor]:
    """{task: unweighted scalar loss} of raw maps [B, C, h, w] against the labels of the same names in `batch`.

    Means over the batch, or over the whole that `counted` describes, of which the batch then gives its share. A task
    without any valid label has the loss 0 and the gradient 0.
    """
    losses = {}
    for name, raw in maps.items():
        label, whole = subsample(batch[name], stride, step), (counted or {}).get(name)
        pred, kind = resize(raw, (label.shape[-2], label.shape[-1])), tasks[name].kind
        if kind == "semseg":
            losses[name] = semseg_loss(pred, label, (class_weight or {}).get(name), whole)
        elif kind == "depth":
            losses[name] = depth_loss(pred, label, whole)
        elif kind == "normals":
            losses[name] = normals_loss(pred, label, whole)
        elif kind == "saliency":
            losses[name] = saliency_loss(pred, label, whole)
        else:
            losses[name] = edge_loss(pred, label, counted=whole)
    return losses


def count_labels(
    batch: Mapping[str, Tensor],
    tasks: Iterable[TaskConfig],
    *,
    stride: int = 1,
    step: int = 0,
    class_weight: Mapping[str, Tensor] | None = None,
) -> dict[str, Count]:
    """{task: Count} of a batch, for `task_losses` over several parts of one step."""
    weights = class_weight or {}
    return {t.name: count(t.kind, subsample(batch[t.name], stride, step), weights.get(t.name)) for t in tasks}
