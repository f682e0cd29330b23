"""Outlines: binary cross-entropy with a fixed positive weight, a quick F-score, and odsF where it is wanted."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from edgemtl.config import TaskConfig
from edgemtl.tasks import INVALID
from edgemtl.train.boundary import BoundaryMeter
from edgemtl.train.config import LossConfig
from edgemtl.train.tasks import PROTOCOLS, Figure, Learner, Score
from edgemtl.train.tasks._binary import f_score, weighted

POSITIVE_WEIGHT = 0.95


class EdgeMeter:
    """F-score of edges at the best threshold for the whole set (0.05 ... 0.95), with a tolerance in pixels.

    Not odsF (`edgemtl.train.boundary`): no thinning, and matching by dilation instead of one-to-one assignment. A
    predicted pixel is right if a true edge lies within `tolerance` pixels (a square), a true one is found if a
    prediction does. Thick predictions are therefore not punished as odsF punishes them. Baseline: edge everywhere.
    With `boundary`, a share of the diagonal, the figures are also those of a `BoundaryMeter`.
    """

    def __init__(self, tolerance: int = 1, boundary: float | None = None) -> None:
        self.tolerance, self.lines = tolerance, None if boundary is None else BoundaryMeter(boundary)
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
        if self.lines:
            self.lines.update(logits, label)

    def compute(self) -> Score:
        predicted, right, true, found = self.counts
        precision, recall = right / predicted.clamp(min=1), found / true.clamp(min=1)
        f = f_score(precision, recall) if self.pixels else torch.full_like(recall, torch.nan)
        best = int(f.argmax())
        share = self.near / (self.pixels or float("nan"))
        return {
            "edge_f": float(f[best]),
            "edge_f_baseline": 2 * share / (1 + share),
            "threshold": float(self.thresholds[best]),
            "precision": float(precision[best]),
            "recall": float(recall[best]),
            **(self.lines.compute() if self.lines else {}),
        }

    def _dilate(self, mask: Tensor) -> Tensor:
        r = self.tolerance
        return F.max_pool2d(mask.float(), 2 * r + 1, 1, r) > 0.5


class Edge(Learner):
    weight = 50.0
    own = Figure("edge_f", "F")
    papers = dict.fromkeys(PROTOCOLS, Figure("ods_f", "odsF %", 100))

    def loss(self, pred: Tensor, label: Tensor, counted: Tensor, options: LossConfig, weight: Tensor | None) -> Tensor:
        return weighted(pred, label, POSITIVE_WEIGHT, counted)

    def meter(self, task: TaskConfig, constant: Any, boundary: float | None) -> EdgeMeter:
        return EdgeMeter(boundary=boundary)


LEARNER = Edge()
