"""What kinds have in common that answer yes or no per pixel; labels are float32 [B, 1, H, W], 0 or 1."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from edgemtl.tasks import INVALID
from edgemtl.train.tasks import mean


def weighted(logits: Tensor, label: Tensor, positive: float | Tensor, counted: Tensor) -> Tensor:
    """Mean over valid pixels of -w·y·log p - (1 - w)·(1 - y)·log(1 - p), w being `positive`."""
    valid = label != INVALID
    y = torch.where(valid, label, torch.zeros_like(label))
    weight = torch.where(y > 0.5, positive, 1 - positive) * valid
    return mean(F.binary_cross_entropy_with_logits(logits, y, weight, reduction="sum"), counted)


def f_score(precision: Tensor, recall: Tensor) -> Tensor:
    """F of the same shape, 0 where both are 0."""
    return 2 * precision * recall / (precision + recall).clamp(min=1e-12)
