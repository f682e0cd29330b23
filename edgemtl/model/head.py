"""The heads: from tokens to a task's raw map. The caller resizes the raw map to the frame.

`conv` is the decoder of M3ViT (Liang et al., NeurIPS 2022), after SETR's (Zheng et al., CVPR 2021). It is 89 % of the
tiny model's work; `light` is about 2 %. Light: the projection turns every token into a (patch / stride)² tile of
`head_dim` channels, the tiles are laid out as an image, two 3x3 depthwise steps (each with a 1x1 mixing step and a
residual) smooth the seams, and a 1x1 step gives the raw map. `pyramid`, the hybrid's, also reads the stem's features.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgemtl import tasks
from edgemtl.config import ModelConfig, TaskConfig
from edgemtl.graph import lite0
from edgemtl.model.norm import BatchNorm


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


class ConvHead(nn.Module):
    """Four times 3x3 convolution to D channels, batch norm, ReLU, each but the last followed by bilinear doubling.

    Tokens [B, N, C] (class token first) to a raw map [B, channels, H / 2, W / 2]; M3ViT's fourth doubling is the
    caller's resize.
    """

    STEPS = 4

    def __init__(self, config: ModelConfig, channels: int) -> None:
        super().__init__()
        self.grid, d = config.grid, config.head_dim
        self.norm = nn.LayerNorm(config.dim, eps=config.norm_eps)
        for i in range(self.STEPS):
            setattr(self, f"conv_{i}", nn.Conv2d(config.dim if i == 0 else d, d, 3, padding=1))
            setattr(self, f"syncbn_fc_{i}", BatchNorm(d) if config.head_norm else nn.Identity())
        self.conv_4 = nn.Conv2d(d, channels, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.norm(tokens[:, 1:]).transpose(1, 2).reshape(len(tokens), -1, *self.grid)
        for i in range(self.STEPS):
            if i:
                size = (2 * x.shape[-2], 2 * x.shape[-1])
                x = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
            x = F.relu(getattr(self, f"syncbn_fc_{i}")(getattr(self, f"conv_{i}")(x)))
        return self.conv_4(x)


class PyramidHead(nn.Module):
    """Tokens [B, N, C] and the stem's features to a raw map [B, channels, H / 4, W / 4].

    Top down as in a feature pyramid (Lin et al., CVPR 2017): tokens and 1/16 features to `head_dim` channels, doubled
    and added to the 1/8 features, a separable step, doubled and added to the 1/4 features, two steps, a 1x1 step. With
    `rays` the direction of each pixel's ray is added at 1/4 (after DSINE, Bae & Davison, CVPR 2024).
    """

    def __init__(self, config: ModelConfig, channels: int, *, rays: bool = False) -> None:
        super().__init__()
        self.grid, d = config.grid, config.head_dim
        at4, at8, at16 = lite0.PYRAMID
        self.norm = nn.LayerNorm(config.dim, eps=config.norm_eps) if config.depth else None
        self.at16 = nn.Conv2d(at16 + (config.dim if config.depth else 0), d, 1)
        self.at8 = nn.Conv2d(at8, d, 1)
        self.at4 = nn.Conv2d(at4, d, 1)
        self.rays = nn.Conv2d(2, d, 1, bias=False) if rays else None
        self.step0 = SeparableStep(d)
        self.step1 = SeparableStep(d)
        self.step2 = SeparableStep(d)
        self.out = nn.Conv2d(d, channels, 1)

    def forward(self, tokens: Tensor, pyramid: tuple[Tensor, ...], rays: Tensor | None = None) -> Tensor:
        at4, at8, at16 = pyramid
        if self.norm is not None:
            wide = self.norm(tokens).transpose(1, 2).reshape(len(tokens), -1, *self.grid)
            at16 = torch.cat([at16, wide.to(at16.dtype)], 1)
        x = self.step0(_double(self.at16(at16)) + self.at8(at8))
        x = _double(x) + self.at4(at4)
        if self.rays is not None and rays is not None:
            x = x + self.rays(rays)
        out: Tensor = self.out(self.step2(self.step1(x)))
        return out


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


Head = LightHead | ConvHead | PyramidHead


def make_head(config: ModelConfig, task: TaskConfig) -> Head:
    """The head that the configuration names, for one task."""
    if config.head == "pyramid":
        kind = tasks.find(task.kind)
        head = PyramidHead(config, task.channels, rays=config.rays and kind.rays)
        # ImageNet's features are large (their standard deviation is 6 to 9): maps must not start as far from any label
        assert head.out.bias is not None
        with torch.no_grad():
            head.out.weight.mul_(0.1)
            head.out.bias.fill_(kind.usual)
        return head
    return ConvHead(config, task.channels) if config.head == "conv" else LightHead(config, task.channels)
