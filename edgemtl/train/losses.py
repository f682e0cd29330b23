"""Task losses, in float32, at label resolution.

The recipe is M3ViT's (Liang et al., NeurIPS 2022) after Vandenhende et al. (TPAMI 2021): cross-entropy, L1 on depth,
L1 on unit normals, and balanced binary cross-entropy on edges with a fixed positive weight. Written from its
description. 255 marks invalid pixels throughout.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from edgemtl.config import TaskConfig, TaskKind

INVALID = 255
EDGE_POSITIVE_WEIGHT = 0.95
DEFAULT_WEIGHTS: dict[TaskKind, float] = {"semseg": 1.0, "depth": 1.0, "normals": 10.0, "edge": 50.0}


def semseg_loss(logits: Tensor, label: Tensor, class_weight: Tensor | None = None) -> Tensor:
    """Mean cross-entropy of logits [B, C, H, W] against int64 [B, H, W]; weighted mean with `class_weight` [C]."""
    valid = (label != INVALID).any()
    loss = F.cross_entropy(logits, label, class_weight, ignore_index=INVALID)
    return loss if valid else logits.sum() * 0


def depth_loss(pred: Tensor, label: Tensor) -> Tensor:
    """Mean |pred - label| in metres over valid pixels; both [B, 1, H, W]."""
    valid = label != INVALID
    return ((pred - label).abs() * valid).sum() / valid.sum().clamp(min=1)


def normals_loss(pred: Tensor, label: Tensor) -> Tensor:
    """Mean absolute difference per component between the unit prediction and the label; both [B, 3, H, W]."""
    valid = (label != INVALID).all(1, keepdim=True)
    difference = (F.normalize(pred, dim=1) - label).abs().sum(1, keepdim=True)
    return (difference * valid).sum() / (3 * valid.sum()).clamp(min=1)


def edge_loss(logits: Tensor, label: Tensor, positive_weight: float = EDGE_POSITIVE_WEIGHT) -> Tensor:
    """Mean over valid pixels of -w·y·log p - (1 - w)·(1 - y)·log(1 - p); both [B, 1, H, W], label 0 or 1."""
    valid = label != INVALID
    y = torch.where(valid, label, torch.zeros_like(label))
    weight = torch.where(y > 0.5, positive_weight, 1 - positive_weight) * valid
    loss = F.binary_cross_entropy_with_logits(logits, y, weight, reduction="sum")
    return loss / valid.sum().clamp(min=1)


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
) -> dict[str, Tensor]:
    """{task: unweighted scalar loss} of raw maps [B, C, h, w] against the labels of the same names in `batch`."""
    losses = {}
    for name, raw in maps.items():
        label = subsample(batch[name], stride, step)
        pred, kind = resize(raw, (label.shape[-2], label.shape[-1])), tasks[name].kind
        if kind == "semseg":
            losses[name] = semseg_loss(pred, label, (class_weight or {}).get(name))
        elif kind == "depth":
            losses[name] = depth_loss(pred, label)
        elif kind == "normals":
            losses[name] = normals_loss(pred, label)
        else:
            losses[name] = edge_loss(pred, label)
    return losses
