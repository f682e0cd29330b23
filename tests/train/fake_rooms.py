"""A data set with the interface of `edgemtl.data.dataset.LabelledSet`: labels follow from the picture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


class FakeRooms:
    """Blocks of random colour; every label is a function of the block's colour. Pure in (index, epoch)."""

    def __init__(self, images: int = 30, size: tuple[int, int] = (32, 64), augment: bool = True) -> None:
        self.images, self.size, self.augment, self.epoch = images, size, augment, 0

    def __len__(self) -> int:
        return self.images

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        samples = [self._sample(int(i)) for i in indices]
        return {key: torch.stack([s[key] for s in samples]) for key in samples[0]}

    def _sample(self, index: int) -> dict[str, Tensor]:
        seed = index * 1000 + (self.epoch if self.augment else 0)
        rng = torch.Generator().manual_seed(seed)
        blocks = torch.randn(3, self.size[0] // 8, self.size[1] // 8, generator=rng)
        image = blocks.repeat_interleave(8, 1).repeat_interleave(8, 2)
        semseg = (image[0] * 3 + 6).clamp(0, 12).long()
        semseg[:2] = 255
        depth = image[1:2].abs() + 1
        depth[:, :2] = 255
        return {
            "image": image,
            "semseg": semseg,
            "depth": depth,
            "normals": F.normalize(image, dim=0),
            "edge": (image[:1] > 1).float(),
        }
