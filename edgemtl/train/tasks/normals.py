"""Unit normals: L1, and angles in degrees."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from edgemtl.config import TaskConfig
from edgemtl.tasks import INVALID
from edgemtl.train.config import LossConfig
from edgemtl.train.tasks import PROTOCOLS, Figure, Learner, Score, mean


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


class Normals(Learner):
    weight = 10.0
    own = Figure("mean_angle", "mean angle (°)", lower=True)
    papers = dict.fromkeys(PROTOCOLS, Figure("mean_angle", "mErr °", lower=True))
    constant_from_training = True

    def loss(self, pred: Tensor, label: Tensor, counted: Tensor, options: LossConfig, weight: Tensor | None) -> Tensor:
        """Mean absolute difference per component between the unit prediction and the label."""
        valid = (label != INVALID).all(1, keepdim=True)
        difference = (F.normalize(pred, dim=1) - label).abs().sum(1, keepdim=True)
        return mean((difference * valid).sum() / 3, counted)

    def meter(self, task: TaskConfig, constant: Any, boundary: float | None) -> NormalsMeter:
        return NormalsMeter(constant)

    def sums(self, label: Tensor) -> Tensor:
        return (label.double() * (label != INVALID)).sum((0, 2, 3))

    def constant(self, sums: Tensor) -> Tensor | None:
        """The mean direction, float32 [3]."""
        return F.normalize(sums, dim=0).float() if sums.norm() > 0 else None


LEARNER = Normals()
