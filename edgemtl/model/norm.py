"""Batch normalisation (Ioffe & Szegedy, ICML 2015) of heads and stems."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BatchNorm(nn.Module):
    """Batch normalisation of [B, D, h, w] with M3ViT's names and without a counter, so that every tensor is a float.

    While training, statistics are this process's own batch's.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, dim: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.register_buffer("running_mean", torch.zeros(dim))
        self.register_buffer("running_var", torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        mean, var, training = self.running_mean, self.running_var, self.training
        return F.batch_norm(x, mean, var, self.weight, self.bias, training, self.momentum, self.eps)
