"""Classes per pixel: cross-entropy, and the mean IoU of pooled counts."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from edgemtl.config import TaskConfig
from edgemtl.tasks import INVALID
from edgemtl.train.config import LossConfig
from edgemtl.train.tasks import PROTOCOLS, Figure, Learner, Score, mean


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


class Semseg(Learner):
    """Labels are int64 [B, H, W]."""

    own = Figure("miou", "mIoU")
    papers = dict.fromkeys(PROTOCOLS, Figure("miou_all", "mIoU %", 100))

    def count(self, label: Tensor, weight: Tensor | None = None) -> Tensor:
        """The valid pixels, or their classes' weights."""
        valid = label != INVALID
        return (valid if weight is None else weight[label[valid]]).sum().double()[None]

    def loss(self, pred: Tensor, label: Tensor, counted: Tensor, options: LossConfig, weight: Tensor | None) -> Tensor:
        """Mean cross-entropy; the weighted mean with `weight`."""
        loss = F.cross_entropy(pred, label, weight, ignore_index=INVALID, reduction="sum")
        return mean(loss, counted)

    def meter(self, task: TaskConfig, constant: Any, boundary: float | None) -> SemsegMeter:
        return SemsegMeter(task.channels, task.classes)


LEARNER = Semseg()
