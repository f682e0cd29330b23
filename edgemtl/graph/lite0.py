"""EfficientNet-Lite0's first eleven blocks as data: the hybrid's stem, layer by layer. No torch.

EfficientNet (Tan & Le, ICML 2019) in its Lite form (TensorFlow, 2020): inverted residuals (Sandler et al., CVPR 2018)
with ReLU6 and without squeeze-and-excite. The model and the graph read this table. Padding is TensorFlow's SAME: at
stride 2 the right and lower side get more.
"""

from __future__ import annotations

from typing import NamedTuple

NORM_EPS = 1e-3  # of the batch norms
FIRST = 32  # channels after the first convolution, which halves the picture
PYRAMID = (24, 40, 112)  # channels of the features at 1/4, 1/8 and 1/16 of the picture


class Block(NamedTuple):
    """An inverted residual: expand 1x1 (not when `expand` is 1), depthwise, project 1x1; with a shortcut if it can."""

    inputs: int
    outputs: int
    kernel: int
    stride: int
    expand: int

    @property
    def middle(self) -> int:
        return self.inputs * self.expand

    @property
    def shortcut(self) -> bool:
        return self.stride == 1 and self.inputs == self.outputs


BLOCKS = (
    Block(32, 16, 3, 1, 1),
    Block(16, 24, 3, 2, 6),
    Block(24, 24, 3, 1, 6),  # 1/4
    Block(24, 40, 5, 2, 6),
    Block(40, 40, 5, 1, 6),  # 1/8
    Block(40, 80, 3, 2, 6),
    Block(80, 80, 3, 1, 6),
    Block(80, 80, 3, 1, 6),
    Block(80, 112, 5, 1, 6),
    Block(112, 112, 5, 1, 6),
    Block(112, 112, 5, 1, 6),  # 1/16
)
TAPS = (2, 4, 10)  # the blocks that give the pyramid's features


class Convolution(NamedTuple):
    """One convolution of the stem. Its weight is [out, in / groups, k, k]."""

    name: str
    inputs: int
    outputs: int
    kernel: int
    stride: int
    groups: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.outputs, self.inputs // self.groups, self.kernel, self.kernel


def convolutions() -> list[Convolution]:
    """The stem's convolutions in order."""
    out = [Convolution("first", 3, FIRST, 3, 2, 1)]
    for i, b in enumerate(BLOCKS):
        if b.expand != 1:
            out.append(Convolution(f"blocks.{i}.expand", b.inputs, b.middle, 1, 1, 1))
        out.append(Convolution(f"blocks.{i}.depthwise", b.middle, b.middle, b.kernel, b.stride, b.middle))
        out.append(Convolution(f"blocks.{i}.project", b.middle, b.outputs, 1, 1, 1))
    return out


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after one side of `size` pixels, as TensorFlow's SAME: the output has ceil(size / stride)."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2
