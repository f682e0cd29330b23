"""What stands out: cross-entropy with the batch's own balance (Xie & Tu, ICCV 2015), IoU and F over thresholds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from edgemtl.config import TaskConfig
from edgemtl.tasks import INVALID
from edgemtl.train.config import LossConfig
from edgemtl.train.tasks import Figure, Learner, Score, mean
from edgemtl.train.tasks._binary import f_score, weighted


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
            "saliency_max_f": float(f_score(precision, recall).max()),
            "saliency_max_f_pooled": float(f_score(right / predicted.clamp(min=1), right / true.clamp(min=1)).max()),
        }


def _counts(predicted: Tensor, truth: Tensor) -> Tensor:
    """Pixels rightly predicted, predicted, and true: [3, thresholds], from [thresholds, pixels] and [pixels]."""
    found = predicted.sum(1)
    return torch.stack([(predicted & truth).sum(1), found, truth.sum().expand_as(found)]).double()


class Saliency(Learner):
    weight = 5.0
    own = Figure("saliency_miou", "mIoU over thresholds")
    papers = {  # noqa: RUF012
        "m3vit": Figure("saliency_miou", "mIoU % (best of 15 thresholds)", 100),
        "invpt": Figure("saliency_max_f_pooled", "maxF % (pooled)", 100),
    }

    def count(self, label: Tensor, weight: Tensor | None = None) -> Tensor:
        """The valid pixels, and the positive ones."""
        valid = label != INVALID
        return torch.stack([valid.sum(), ((label > 0.5) & valid).sum()]).double()

    def loss(self, pred: Tensor, label: Tensor, counted: Tensor, options: LossConfig, weight: Tensor | None) -> Tensor:
        """The weight of the positive pixels is the share of the valid ones that are 0."""
        return weighted(pred, label, 1 - mean(counted[1].float(), counted), counted)

    def meter(self, task: TaskConfig, constant: Any, boundary: float | None) -> SaliencyMeter:
        return SaliencyMeter()


LEARNER = Saliency()
