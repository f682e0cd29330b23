"""The hybrid's stem: EfficientNet-Lite0's first eleven blocks, from pixels to features at 1/4, 1/8 and 1/16.

EfficientNet-Lite (Tan & Le, ICML 2019; Lite form by TensorFlow, 2020); the layers are listed in edgemtl/graph/lite0.py.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgemtl.graph import lite0
from edgemtl.model.norm import BatchNorm

MOMENTUM = 0.05  # of the running statistics: half of PyTorch's, because batches are small


class ConvNorm(nn.Module):
    """Convolution with SAME padding, batch norm, ReLU6 where `relu6`; without `norm` the convolution has a bias."""

    def __init__(self, spec: lite0.Convolution, *, relu6: bool, norm: bool) -> None:
        super().__init__()
        k, s = spec.kernel, spec.stride
        self.relu6 = relu6
        self.conv = nn.Conv2d(spec.inputs, spec.outputs, k, s, groups=spec.groups, bias=not norm)
        self.norm = BatchNorm(spec.outputs, lite0.NORM_EPS, MOMENTUM) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(_same(x, self.conv))
        return F.relu6(x) if self.relu6 else x


def _same(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """A convolution with TensorFlow's SAME padding."""
    (k, _), (s, _) = conv.kernel_size, conv.stride
    high, wide = (lite0.same_padding(n, k, s) for n in x.shape[-2:])
    if conv.groups > 1 and torch.is_grad_enabled() and x.device.type == "cpu":
        return _trained(x, conv, high, wide)
    if high[0] != high[1] or wide[0] != wide[1]:
        return F.conv2d(F.pad(x, (*wide, *high)), conv.weight, conv.bias, s, 0, 1, conv.groups)
    return F.conv2d(x, conv.weight, conv.bias, s, (high[0], wide[0]), 1, conv.groups)


def _trained(x: Tensor, conv: nn.Conv2d, high: tuple[int, int], wide: tuple[int, int]) -> Tensor:
    """A depthwise convolution on a CPU, in the form whose gradient oneDNN 3 is quick at.

    Its bfloat16 gradient is 9 to 20 times slower at stride 2 than at stride 1 (59 ms for 96 channels of 96x128, batch
    8, one Zen 4 core), so stride 2 is stride 1 with every second pixel taken; for 5x5 it is slower than float32's.
    """
    s, autocast = conv.stride[0], torch.is_autocast_enabled("cpu")
    if autocast and conv.kernel_size[0] > 3:
        with torch.autocast("cpu", enabled=False):
            return F.conv2d(F.pad(x.float(), (*wide, *high)), conv.weight, conv.bias, s, 0, 1, conv.groups)
    if autocast and s > 1:
        x = F.conv2d(F.pad(x, (*wide, *high)), conv.weight, conv.bias, 1, 0, 1, conv.groups)
        return x[..., ::s, ::s].contiguous(memory_format=torch.channels_last)
    return F.conv2d(F.pad(x, (*wide, *high)), conv.weight, conv.bias, s, 0, 1, conv.groups)


class InvertedResidual(nn.Module):
    """x + project(depthwise(expand(x))), without the sum where the shape changes."""

    def __init__(self, index: int, specs: Mapping[str, lite0.Convolution], *, norm: bool) -> None:
        super().__init__()
        block, name = lite0.BLOCKS[index], f"blocks.{index}."
        self.shortcut = block.shortcut
        self.expand: nn.Module = nn.Identity()
        if block.expand != 1:
            self.expand = ConvNorm(specs[f"{name}expand"], relu6=True, norm=norm)
        self.depthwise = ConvNorm(specs[f"{name}depthwise"], relu6=True, norm=norm)
        self.project = ConvNorm(specs[f"{name}project"], relu6=False, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.shortcut else y


class Lite0Stem(nn.Module):
    """`stem(image [B, 3, H, W])` gives features [B, 24, H/4, W/4], [B, 40, H/8, W/8] and [B, 112, H/16, W/16].

    `norm` False: batch norms are part of the convolutions.
    """

    def __init__(self, *, norm: bool = True) -> None:
        super().__init__()
        specs = {c.name: c for c in lite0.convolutions()}
        self.first = ConvNorm(specs["first"], relu6=True, norm=norm)
        self.blocks = nn.ModuleList(InvertedResidual(i, specs, norm=norm) for i in range(len(lite0.BLOCKS)))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, found = self.first(image), []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in lite0.TAPS:
                found.append(x)
        return found[0], found[1], found[2]
