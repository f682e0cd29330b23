"""Light convolution networks to compare with: BiSeNet's kind, from scratch, and on the hybrid's own stem.

BiSeNet (Yu et al., ECCV 2018): a shallow spatial path keeps the outlines, a deep context path with global pooling
and attention refinement knows what they belong to, and a fusion step weighs the channels of both. It was made for
frames of 1024x2048 pixels; here the fine features are at a quarter of the frame instead of an eighth, because frames
are small. One light head per task. Written from the paper's description.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgemtl.config import ModelConfig
from edgemtl.graph import lite0
from edgemtl.model.stem import Lite0Stem
from edgemtl.model.vit import Trace


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class Residual(nn.Module):
    """ResNet's basic block (He et al., CVPR 2016): two 3x3 convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = conv(inputs, outputs, stride=stride)
        self.second = nn.Sequential(nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs))
        self.short: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.short = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(self.first(x)) + self.short(x))


class Refine(nn.Module):
    """Attention refinement: a 3x3 convolution whose channels are scaled by a gate of their means."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = conv(inputs, outputs)
        self.gate = nn.Conv2d(outputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x * self.gate(x.mean((2, 3), keepdim=True)).sigmoid()


class Fuse(nn.Module):
    """Feature fusion: both streams mixed by a 1x1 convolution, then channels reweighed beside the identity."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.mix = conv(inputs, outputs, 1)
        self.squeeze = nn.Conv2d(outputs, outputs // 4, 1)
        self.excite = nn.Conv2d(outputs // 4, outputs, 1)

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        x = self.mix(torch.cat([detail, context], 1))
        return x + x * self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True)))).sigmoid()


class BiSeNet(nn.Module):
    """`model(image)` returns {task: raw map [B, channels, H / 4, W / 4]}; image as for `MultiTaskViT`.

    H and W are multiples of 32. `width` is the channels of the context path's first stage.
    """

    STEM = ""  # no part of it takes a stem's weights
    SIDES = 32  # of which an image's must be multiples

    def __init__(self, config: ModelConfig, width: int = 32) -> None:
        super().__init__()
        self.config = config
        w, fused = width, 4 * width
        self.spatial = nn.Sequential(conv(3, w, stride=2), conv(w, 2 * w, stride=2), conv(2 * w, 2 * w))
        self.stem = nn.Sequential(conv(3, w, stride=2), conv(w, w, stride=2))
        self.stage8 = nn.Sequential(Residual(w, 2 * w, 2), Residual(2 * w, 2 * w, 1))
        self.stage16 = nn.Sequential(Residual(2 * w, 4 * w, 2), Residual(4 * w, 4 * w, 1))
        self.stage32 = nn.Sequential(Residual(4 * w, 8 * w, 2), Residual(8 * w, 8 * w, 1))
        self.pool = nn.Conv2d(8 * w, fused, 1)
        self.refine16, self.refine32 = Refine(4 * w, fused), Refine(8 * w, fused)
        self.up16, self.up8 = conv(fused, fused), conv(fused, 2 * w)
        self.fuse = Fuse(4 * w, 2 * w)
        self.heads = nn.ModuleDict(
            {t.name: nn.Sequential(conv(2 * w, 2 * w), nn.Conv2d(2 * w, t.channels, 1)) for t in config.tasks}
        )

    def forward(
        self, image: Tensor, tasks: Sequence[str] | None = None, fov: Tensor | None = None
    ) -> dict[str, Tensor]:
        detail = self.spatial(image)
        at16 = self.stage16(self.stage8(self.stem(image)))
        at32 = self.stage32(at16)
        whole = self.pool(at32.mean((2, 3), keepdim=True))  # one vector: what the whole picture is about
        x = self.up16(F.interpolate(self.refine32(at32) + whole, scale_factor=2.0, mode="nearest"))
        x = self.up8(F.interpolate(self.refine16(at16) + x, scale_factor=2.0, mode="nearest"))
        context = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        fused = self.fuse(detail, context)
        return {name: self.heads[name](fused) for name in (tasks or self.config.task_names)}

    def trace(
        self, image: Tensor, tasks: Sequence[str] | None = None, fov: Tensor | None = None
    ) -> tuple[dict[str, Tensor], Trace]:
        """As `MultiTaskViT.trace`, so that one loop trains both; there are no gates to note, and no rays to read."""
        return self(image, tasks, fov), Trace(image.new_zeros(()), {})


class BiSeNetLite0(nn.Module):
    """BiSeNet's decoder on the stem of the hybrid, whose fine features are the spatial path.

    `model(image)` returns {task: raw map [B, channels, H / 4, W / 4]}; image as for `MultiTaskViT`, H and W multiples
    of 16. The context path ends at the stem's 1/16 features, refined and added to the vector of the whole picture; it
    is fused with the features at 1/8 and at 1/4. With the default `width` one task and four cost what they cost the
    preset `hybrid`, within 6 %.
    """

    STEM = "stem"  # where a stem's weights go
    SIDES = 16

    def __init__(self, config: ModelConfig, width: int = 96) -> None:
        super().__init__()
        self.config = config
        at4, at8, at16 = lite0.PYRAMID
        w, context = width, 2 * width
        self.stem = Lite0Stem()
        self.refine16, self.pool = Refine(at16, context), nn.Conv2d(at16, context, 1)
        self.up8 = conv(context, w)
        self.fuse8, self.fuse4 = Fuse(at8 + w, w), Fuse(at4 + w, w)
        self.heads = nn.ModuleDict(
            {t.name: nn.Sequential(conv(w, w), nn.Conv2d(w, t.channels, 1)) for t in config.tasks}
        )

    def forward(
        self, image: Tensor, tasks: Sequence[str] | None = None, fov: Tensor | None = None
    ) -> dict[str, Tensor]:
        at4, at8, at16 = self.stem(image)
        whole = self.pool(at16.mean((2, 3), keepdim=True))
        x = self.up8(_double(self.refine16(at16) + whole))
        x = self.fuse4(at4, _double(self.fuse8(at8, x)))
        return {name: self.heads[name](x) for name in (tasks or self.config.task_names)}

    def trace(
        self, image: Tensor, tasks: Sequence[str] | None = None, fov: Tensor | None = None
    ) -> tuple[dict[str, Tensor], Trace]:
        """As `BiSeNet.trace`."""
        return self(image, tasks, fov), Trace(image.new_zeros(()), {})


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
