"""Models and pictures for the accelerator's tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgemtl.config import ModelConfig
from edgemtl.model import MultiTaskViT, preset
from edgemtl.model.checkpoint import arrays
from edgemtl_compiler.fpga.network import IntegerNetwork
from edgemtl_compiler.quantise.calibrate import calibrate
from edgemtl_compiler.quantise.fpga import quantise

HLS = Path(__file__).parents[2] / "hls"


def lively(name: str, seed: int = 0, **changes: object) -> MultiTaskViT:
    """A seeded model whose layers all matter: weights well above their initial size, norms and biases not trivial."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model = MultiTaskViT(preset(name, **changes)).eval()
    with torch.no_grad():
        for key, p in model.named_parameters():
            if "bias" in key or "norm" in key:
                p.add_(torch.randn(p.shape, generator=generator) * 0.2)
            elif "embed" not in key and "cls" not in key:
                p.mul_(3.0)
    return model


def pictures(n: int, height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Blocks of colour with some noise, uint8 [n, 3, height, width]."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (n, 3, height // 8, width // 8))
    noise = rng.integers(-20, 21, (n, 3, height, width))
    return np.clip(coarse.repeat(8, 2).repeat(8, 3) + noise, 0, 255).astype(np.uint8)


def normalised(images: NDArray[np.uint8], config: ModelConfig) -> torch.Tensor:
    """uint8 RGB [n, 3, H, W] as the model's input."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (config.image_mean, config.image_std))
    return (torch.from_numpy(images).float() / 255 - mean) / std


def state(model: MultiTaskViT) -> dict[str, NDArray[np.float32]]:
    return arrays(model.state_dict())


def integers(model: MultiTaskViT, images: NDArray[np.uint8], **options: Any) -> IntegerNetwork:
    """The model's integer network, calibrated on the images."""
    return quantise(model.config, state(model), calibrate(model.config, state(model), images), **options)
