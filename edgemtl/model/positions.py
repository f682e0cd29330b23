"""A model for images of another size: its learned positions are resized, everything else stays.

As M3ViT does with ImageNet's positions (Liang et al., NeurIPS 2022): bilinear over the grid of patches, half-pixel
centres; the class token keeps its own.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from edgemtl.config import ModelConfig

KEY = "backbone.pos_embed"


def resize_positions(positions: Tensor, old: tuple[int, int], new: tuple[int, int], class_tokens: int = 1) -> Tensor:
    """Positions [1, class_tokens + h·w, C] of a grid (h, w) for another grid, in the same type."""
    first, patches = positions[:, :class_tokens], positions[:, class_tokens:]
    image = patches.transpose(1, 2).reshape(1, -1, *old).float()
    sized = F.interpolate(image, new, mode="bilinear", align_corners=False)
    return torch.cat([first, sized.flatten(2).transpose(1, 2).to(positions.dtype)], 1)


def at_size(
    config: ModelConfig, state: Mapping[str, Tensor], size: tuple[int, int]
) -> tuple[ModelConfig, dict[str, Tensor]]:
    """The model for images of `size` (height, width). Raises ValueError (pydantic's) for a size that cannot be."""
    new = ModelConfig(**{**dict(config), "image_size": size})
    if new.grid == config.grid or KEY not in state:
        return new, dict(state)
    return new, {**state, KEY: resize_positions(state[KEY], config.grid, new.grid, config.class_tokens)}
