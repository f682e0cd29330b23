"""The light head: projection, pixel-shuffle, depthwise-separable steps.

M3ViT's convolution decoder is 89 % of the tiny model's work; this one is about 2 %. The projection turns every token
into a (patch / stride)² tile of `head_dim` channels, the tiles are laid out as an image, two 3x3 depthwise steps
(each with a 1x1 mixing step and a residual) smooth the seams, and a 1x1 step gives the raw map. The caller resizes
the raw map to the frame.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from edgemtl.config import ModelConfig


class SeparableStep(nn.Module):
    """x + pointwise(GELU(depthwise(x))) on [B, D, h, w]."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.pointwise = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.pointwise(F.gelu(self.depthwise(x)))


class LightHead(nn.Module):
    """Tokens [B, N, C] (class token first) to a raw map [B, channels, H / stride, W / stride]."""

    def __init__(self, config: ModelConfig, channels: int) -> None:
        super().__init__()
        self.grid, self.tile = config.grid, config.patch // config.head_stride
        self.norm = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.proj = nn.Linear(config.dim, self.tile * self.tile * config.head_dim)
        self.step0 = SeparableStep(config.head_dim)
        self.step1 = SeparableStep(config.head_dim)
        self.out = nn.Conv2d(config.head_dim, channels, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        (rows, cols), t = self.grid, self.tile
        x = F.gelu(self.proj(self.norm(tokens[:, 1:])))
        x = x.reshape(len(tokens), rows, cols, t, t, -1).permute(0, 1, 3, 2, 4, 5)  # B, rows, t, cols, t, D
        x = x.reshape(len(tokens), rows * t, cols * t, -1).permute(0, 3, 1, 2)  # channels last in memory: faster
        out: Tensor = self.out(self.step1(self.step0(x)))
        return out
