"""From light to a cheap camera's picture: exposure, white balance, shoulder, contrast, blur, noise."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def develop(linear: Floats, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Linear light [H, W, 3] to a cheap camera's picture: exposure, white balance, shoulder, contrast, blur, noise."""
    height, width = linear.shape[:2]
    level = float(np.exp(np.log(linear.mean(-1) + np.float32(1e-3)).mean(dtype=np.float64)))
    key = float(np.exp(rng.normal(np.log(0.155), 0.45)))
    balance = 1 - float(rng.uniform(0.35, 0.95)) * (1 - _grey(linear))
    light = (
        linear
        * (balance * rng.uniform((0.98, 0.95, 0.82), (1.14, 1.04, 1.02))).astype(np.float32)
        * np.float32(key / level)
    )
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    light *= (1 - rng.uniform(0.0, 0.3) * (x * x + y * y) / 2)[..., None].astype(np.float32)
    shown = 1 - np.exp(-np.float32(rng.uniform(1.2, 1.7)) * light)
    shown = np.maximum(shown, 0) ** np.float32(1 / rng.uniform(1.9, 2.4))
    contrast = np.float32(rng.uniform(0.1, 0.8))
    shown = shown + contrast * (shown * shown * (3 - 2 * shown) - shown)
    grey = shown.mean(-1, keepdims=True)
    shown = grey + (shown - grey) * np.float32(rng.uniform(0.75, 1.25))
    blur = float(rng.uniform(-0.3, 0.65))
    if blur > 0.25:
        shown = cv2.GaussianBlur(shown, (0, 0), blur)
    grain = float(rng.uniform(0.002, 0.022))
    shown = shown + rng.standard_normal(shown.shape, np.float32) * np.float32(grain)
    return (np.clip(shown, 0, 1) * 255 + 0.5).astype(np.uint8)


def _grey(linear: Floats) -> NDArray[np.float64]:
    """Factors per channel that would make the picture's mean grey."""
    mean = linear.reshape(-1, 3).mean(0, dtype=np.float64) + 1e-6
    return np.asarray(mean.mean() / mean)
