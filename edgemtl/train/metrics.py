"""Metrics, accumulated over a whole set, most with the score of a trivial prediction.

mIoU from pooled counts, angular error of normals, saliency, and an edge F-score; depth is in
`edgemtl.train.metrics_depth`. The pooling follows the protocol of Vandenhende et al. (TPAMI 2021) that M3ViT reports;
where other papers define a figure otherwise both are given, under two names, and `edgemtl.train.protocols` keeps them
in separate tables. `edge_f` is quick and not odsF: that is in `edgemtl.train.boundary`. A figure of a set without
labels is NaN.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from edgemtl.config import TaskConfig
from edgemtl.train.losses import INVALID
from edgemtl.train.metrics_depth import DepthMeter

Score = dict[str, Any]  # name: number, or a dict of them


class SemsegMeter:
    """mIoU and per-class IoU.

    `miou` is the mean over classes that appear in the labels or in the predictions: one that is predicted but never
    labelled counts 0, one that is in neither is left out. `miou_all` is over all classes, and one that is in neither
    counts 0, as in the published tables. Baseline: the labels' most frequent class everywhere.
    """

    def __init__(self, classes: int, names: tuple[str, ...] = ()) -> None:
        self.names = names or tuple(map(str, range(classes)))
        self.matrix = torch.zeros(classes, classes, dtype=torch.int64)  # rows: labels, columns: predictions

    def update(self, logits: Tensor, label: Tensor) -> None:
        """logits [B, C, H, W]; label int64 [B, H, W]."""
        classes = len(self.matrix)
        valid = label != INVALID
        pairs = label[valid] * classes + logits.argmax(1)[valid]
        self.matrix += torch.bincount(pairs.cpu(), minlength=classes * classes).view(classes, classes)

    def compute(self) -> Score:
        counts = self.matrix.double()
        hit, labelled, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
        union = labelled + predicted - hit
        iou = hit / union.clamp(min=1)
        present = int((labelled > 0).sum())
        total = float(labelled.sum())
        return {
            "miou": float(iou[union > 0].mean()) if total else float("nan"),
            "miou_all": float(iou.mean()) if total else float("nan"),
            "miou_baseline": float(labelled.max()) / total / present if total else float("nan"),
            "pixel_accuracy": float(hit.sum()) / total if total else float("nan"),
            "iou": {name: float(iou[c]) for c, name in enumerate(self.names) if union[c] > 0},
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
    """Mean and median angle in degrees, and the share of pixels within 11.25, 22.5 and 30.

    The median is that of a histogram with steps of 0.01 degrees. Baseline: one direction everywhere.
    """

    LIMITS = (11.25, 22.5, 30.0)
    STEPS = 100  # of the histogram, per degree

    def __init__(self, direction: Tensor | None = None) -> None:
        self.direction = torch.tensor([0.0, 0.0, 1.0]) if direction is None else direction
        self.count, self.total, self.baseline = 0, 0.0, 0.0
        self.within = [0] * len(self.LIMITS)
        self.histogram = torch.zeros(180 * self.STEPS + 1, dtype=torch.int64)

    def update(self, pred: Tensor, label: Tensor) -> None:
        """pred, label [B, 3, H, W]."""
        angle = angular_error(pred, label)
        constant = self.direction.to(label).view(1, 3, 1, 1).expand_as(label)
        self.count += angle.numel()
        self.total += float(angle.sum())
        self.baseline += float(angular_error(constant, label).sum())
        self.histogram += torch.bincount((angle * self.STEPS).long(), minlength=len(self.histogram))
        for i, limit in enumerate(self.LIMITS):
            self.within[i] += int((angle < limit).sum())

    def compute(self) -> Score:
        n = self.count or float("nan")
        share = {f"within_{limit:g}": hits / n for limit, hits in zip(self.LIMITS, self.within, strict=True)}
        middle = int((self.histogram.cumsum(0) * 2 >= self.count).nonzero()[0])
        return {
            "mean_angle": self.total / n,
            "mean_angle_baseline": self.baseline / n,
            "median_angle": (middle + 0.5) / self.STEPS if self.count else float("nan"),
            **share,
        }


class SaliencyMeter:
    """Saliency by the two definitions in use, whose figures lie 15 points apart and must not be compared.

    `saliency_miou` and `saliency_max_f` (Vandenhende et al., M3ViT): IoU, precision and recall per image, averaged over
    images, at 15 thresholds from 0.2 to 0.9; then the best threshold. An image with nothing salient in label and
    prediction has IoU 1. `saliency_max_f_pooled` (ATRC, InvPT): pixels of all images pooled, thresholds 0.05 to 0.95;
    InvPT's code squashes the probabilities twice, which only moves its thresholds. Baseline: salient everywhere.
    """

    THRESHOLDS = torch.linspace(0.2, 0.9, 15, dtype=torch.float64)
    POOLED = torch.arange(1, 20, dtype=torch.float64) / 20

    def __init__(self) -> None:
        self.images = 0
        self.per_image = torch.zeros(3, len(self.THRESHOLDS), dtype=torch.float64)  # IoU, precision, recall
        self.pooled = torch.zeros(3, len(self.POOLED), dtype=torch.float64)  # right, predicted, true
        self.everywhere = 0.0

    def update(self, logits: Tensor, label: Tensor) -> None:
        """logits, label [B, 1, H, W]; label 0, 1, or 255 where it is invalid. An image without a label is left out."""
        for raw, target in zip(logits[:, 0], label[:, 0], strict=True):
            valid = target != INVALID
            if not valid.any():
                continue
            self.images += 1
            prob, truth = raw.double().sigmoid()[valid], target[valid] > 0.5
            self.everywhere += float(truth.double().mean())
            right, predicted, true = _counts(prob[None] > self.THRESHOLDS[:, None], truth)
            union = predicted + true - right
            iou = torch.where(union > 0, right / union.clamp(min=1), 1.0)
            self.per_image += torch.stack([iou, right / predicted.clamp(min=1), right / true.clamp(min=1)])
            self.pooled += _counts(prob[None] >= self.POOLED[:, None], truth)

    def compute(self) -> Score:
        if not self.images:
            keys = ("saliency_miou", "saliency_miou_baseline", "saliency_max_f", "saliency_max_f_pooled")
            return dict.fromkeys(keys, float("nan"))
        iou, precision, recall = self.per_image / self.images
        right, predicted, true = self.pooled
        return {
            "saliency_miou": float(iou.max()),
            "saliency_miou_baseline": self.everywhere / self.images,
            "saliency_max_f": float(_f(precision, recall).max()),
            "saliency_max_f_pooled": float(_f(right / predicted.clamp(min=1), right / true.clamp(min=1)).max()),
        }


def _counts(predicted: Tensor, truth: Tensor) -> Tensor:
    """Pixels rightly predicted, predicted, and true: [3, thresholds], from [thresholds, pixels] and [pixels]."""
    found = predicted.sum(1)
    return torch.stack([(predicted & truth).sum(1), found, truth.sum().expand_as(found)]).double()


def _f(precision: Tensor, recall: Tensor) -> Tensor:
    return 2 * precision * recall / (precision + recall).clamp(min=1e-12)


class EdgeMeter:
    """F-score of edges at the best threshold for the whole set (0.05 ... 0.95), with a tolerance in pixels.

    Not odsF (`edgemtl.train.boundary`): no thinning, and matching by dilation instead of one-to-one assignment. A
    predicted pixel is right if a true edge lies within `tolerance` pixels (a square), a true one is found if a
    prediction does. Thick predictions are therefore not punished as odsF punishes them. Baseline: edge everywhere.
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
        f = _f(precision, recall) if self.pixels else torch.full_like(recall, torch.nan)
        best = int(f.argmax())
        share = self.near / (self.pixels or float("nan"))
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


Meter = SemsegMeter | DepthMeter | NormalsMeter | EdgeMeter | SaliencyMeter


def make_meter(
    task: TaskConfig,
    depth_mean: float | None = None,
    direction: Tensor | None = None,
    depth_image: Tensor | None = None,
) -> Meter:
    """The meter of a task's kind; the constants are the baselines'."""
    if task.kind == "semseg":
        return SemsegMeter(task.channels, task.classes)
    if task.kind == "depth":
        return DepthMeter(depth_mean, depth_image)
    if task.kind == "normals":
        return NormalsMeter(direction)
    return SaliencyMeter() if task.kind == "saliency" else EdgeMeter()
