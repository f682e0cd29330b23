"""The two heads: from tokens to a task's raw map. The caller resizes the raw map to the frame.

`conv` is the decoder of M3ViT (Liang et al., NeurIPS 2022), after SETR's (Zheng et al., CVPR 2021). It is 89 % of the
tiny model's work; `light` is about 2 %. Light: the projection turns every token into a (patch / stride)² tile of
`head_dim` channels, the tiles are laid out as an image, two 3x3 depthwise steps (each with a 1x1 mixing step and a
residual) smooth the seams, and a 1x1 step gives the raw map.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
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


class BatchNorm(nn.Module):
    """Batch normalisation of [B, D, h, w] with M3ViT's names and without a counter, so that every tensor is a float.

    While training, statistics are this process's own batch's.
    """

    running_mean: Tensor
    running_var: Tensor

    EPS, MOMENTUM = 1e-5, 0.1

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.register_buffer("running_mean", torch.zeros(dim))
        self.register_buffer("running_var", torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        mean, var, training = self.running_mean, self.running_var, self.training
        return F.batch_norm(x, mean, var, self.weight, self.bias, training, self.MOMENTUM, self.EPS)


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


@torch.no_grad()
def fold_norms(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state with every batch norm of its conv heads taken into the convolution before it."""
    out = dict(state)
    for key in state:
        if not key.endswith(".running_var"):
            continue
        norm = key.removesuffix("running_var")
        conv = norm.replace(".syncbn_fc_", ".conv_")
        weight, bias, mean, var = (out.pop(norm + name) for name in ("weight", "bias", "running_mean", "running_var"))
        scale = weight / (var + BatchNorm.EPS).sqrt()
        out[f"{conv}weight"] = state[f"{conv}weight"] * scale.view(-1, 1, 1, 1)
        out[f"{conv}bias"] = (state[f"{conv}bias"] - mean) * scale + bias
    return out


Head = LightHead | ConvHead


def make_head(config: ModelConfig, channels: int) -> Head:
    """The head that the configuration names."""
    return ConvHead(config, channels) if config.head == "conv" else LightHead(config, channels)
