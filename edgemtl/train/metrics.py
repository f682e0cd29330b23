"""Metrics, accumulated over a whole set, each with the score of a trivial prediction.

mIoU from pooled counts, depth RMSE pooled over pixels (not a mean over images), mean angular error of normals, and an
edge F-score. The pooling follows the protocol of Vandenhende et al. (TPAMI 2021) that M3ViT reports; `edge_f` is not
SEISM's odsF: see `EdgeMeter`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from edgemtl.config import TaskConfig
from edgemtl.train.losses import INVALID

Score = dict[str, Any]  # name: number, or a dict of them


class SemsegMeter:
    """mIoU and per-class IoU.

    The mean is over classes that appear in the labels or in the predictions: one that is predicted but never labelled
    counts 0, one that is in neither is left out (the reference counts it 0). Baseline: the labels' most frequent
    class everywhere.
    """

    def __init__(self, classes: int, names: tuple[str, ...] = ()) -> None:
        self.names = names or tuple(map(str, range(classes)))
        self.matrix = MulticlassConfusionMatrix(classes, ignore_index=INVALID)

    def update(self, logits: Tensor, label: Tensor) -> None:
        """logits [B, C, H, W]; label int64 [B, H, W]."""
        self.matrix.update(logits.argmax(1), label)

    def compute(self) -> Score:
        counts = self.matrix.confmat.double()  # rows: labels, columns: predictions
        hit, labelled, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
        union = labelled + predicted - hit
        iou = hit / union.clamp(min=1)
        present = int((labelled > 0).sum())
        total = float(labelled.sum())
        return {
            "miou": float(iou[union > 0].mean()) if total else float("nan"),
            "miou_baseline": float(labelled.max()) / total / present if total else float("nan"),
            "pixel_accuracy": float(hit.sum()) / total if total else float("nan"),
            "iou": {name: float(iou[c]) for c, name in enumerate(self.names) if union[c] > 0},
        }


class DepthMeter:
    """RMSE in metres over all valid pixels of the set. Baseline: `mean`, the training pixels' mean, everywhere."""

    def __init__(self, mean: float | None = None) -> None:
        self.mean, self.count = mean, 0
        self.squared = self.absolute = self.label_sum = self.label_squared = 0.0

    def update(self, pred: Tensor, label: Tensor) -> None:
        """pred, label [B, 1, H, W] in metres."""
        valid = label != INVALID
        truth = label[valid].double()
        error = pred[valid].double() - truth
        self.count += truth.numel()
        self.squared += float(error.square().sum())
        self.absolute += float(error.abs().sum())
        self.label_sum += float(truth.sum())
        self.label_squared += float(truth.square().sum())

    def compute(self) -> Score:
        n = max(1, self.count)
        mean = self.label_sum / n if self.mean is None else self.mean
        spread = self.label_squared / n - 2 * mean * self.label_sum / n + mean * mean
        return {
            "rmse": (self.squared / n) ** 0.5,
            "rmse_baseline": max(0.0, spread) ** 0.5,
            "mae": self.absolute / n,
        }


def angular_error(pred: Tensor, label: Tensor) -> Tensor:
    """Angle in degrees between pred [B, 3, H, W] (any length) and unit label, at valid pixels: [valid].

    2·atan2(|a - b|, |a + b|), which keeps its precision near 0 and 180 degrees.
    """
    valid = (label != INVALID).all(1)
    a = F.normalize(pred.double(), dim=1).permute(0, 2, 3, 1)[valid]
    b = F.normalize(label.double(), dim=1).permute(0, 2, 3, 1)[valid]
    return torch.rad2deg(2 * torch.atan2((a - b).norm(dim=-1), (a + b).norm(dim=-1)))


class NormalsMeter:
    """Mean angle in degrees, and the share of pixels within 11.25, 22.5 and 30. Baseline: one direction everywhere."""

    LIMITS = (11.25, 22.5, 30.0)

    def __init__(self, direction: Tensor | None = None) -> None:
        self.direction = torch.tensor([0.0, 0.0, 1.0]) if direction is None else direction
        self.count, self.total, self.baseline = 0, 0.0, 0.0
        self.within = [0] * len(self.LIMITS)

    def update(self, pred: Tensor, label: Tensor) -> None:
        """pred, label [B, 3, H, W]."""
        angle = angular_error(pred, label)
        constant = self.direction.to(label).view(1, 3, 1, 1).expand_as(label)
        self.count += angle.numel()
        self.total += float(angle.sum())
        self.baseline += float(angular_error(constant, label).sum())
        for i, limit in enumerate(self.LIMITS):
            self.within[i] += int((angle < limit).sum())

    def compute(self) -> Score:
        n = max(1, self.count)
        share = {f"within_{limit:g}": hits / n for limit, hits in zip(self.LIMITS, self.within, strict=True)}
        return {"mean_angle": self.total / n, "mean_angle_baseline": self.baseline / n, **share}


class EdgeMeter:
    """F-score of edges at the best threshold for the whole set (0.05 ... 0.95), with a tolerance in pixels.

    Not SEISM's odsF: no thinning, and matching by dilation instead of one-to-one assignment. A predicted pixel is
    right if a true edge lies within `tolerance` pixels (a square), a true one is found if a prediction does. Thick
    predictions are therefore not punished as SEISM punishes them. Baseline: edge everywhere.
    """

    def __init__(self, tolerance: int = 1) -> None:
        self.tolerance = tolerance
        self.thresholds = torch.arange(1, 20).double() / 20
        self.counts = torch.zeros(4, len(self.thresholds), dtype=torch.float64)  # predicted, right, true, found
        self.pixels, self.near = 0, 0

    def update(self, logits: Tensor, label: Tensor) -> None:
        """logits, label [B, 1, H, W]; label 0, 1, or 255 where it is invalid."""
        valid = label != INVALID
        truth = (label > 0.5) & valid
        near = self._dilate(truth) & valid
        prob = logits.double().sigmoid()
        self.pixels += int(valid.sum())
        self.near += int(near.sum())
        for i, threshold in enumerate(self.thresholds.tolist()):
            pred = (prob >= threshold) & valid
            found = truth & self._dilate(pred)
            numbers = [int(x.sum()) for x in (pred, pred & near, truth, found)]
            self.counts[:, i] += torch.tensor(numbers, dtype=torch.float64)

    def compute(self) -> Score:
        predicted, right, true, found = self.counts
        precision, recall = right / predicted.clamp(min=1), found / true.clamp(min=1)
        f = 2 * precision * recall / (precision + recall).clamp(min=1e-12)
        best = int(f.argmax())
        share = self.near / max(1, self.pixels)
        return {
            "edge_f": float(f[best]),
            "edge_f_baseline": 2 * share / (1 + share),
            "threshold": float(self.thresholds[best]),
            "precision": float(precision[best]),
            "recall": float(recall[best]),
        }

    def _dilate(self, mask: Tensor) -> Tensor:
        r = self.tolerance
        return F.max_pool2d(mask.float(), 2 * r + 1, 1, r) > 0.5


Meter = SemsegMeter | DepthMeter | NormalsMeter | EdgeMeter


def make_meter(task: TaskConfig, depth_mean: float | None = None, direction: Tensor | None = None) -> Meter:
    """The meter of a task's kind; the constants are the baselines'."""
    if task.kind == "semseg":
        return SemsegMeter(task.channels, task.classes)
    if task.kind == "depth":
        return DepthMeter(depth_mean)
    if task.kind == "normals":
        return NormalsMeter(direction)
    return EdgeMeter()
