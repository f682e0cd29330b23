"""The forty classes of NYU Depth V2 (Gupta et al., CVPR 2013) and a colour for each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CLASSES: tuple[str, ...] = (
    "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture", "counter",
    "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat", "clothes", "ceiling",
    "books", "refrigerator", "television", "paper", "towel", "shower curtain", "box", "whiteboard", "person",
    "night stand", "toilet", "sink", "lamp", "bathtub", "bag", "otherstructure", "otherfurniture", "otherprop",
)  # fmt: skip
INDEX: dict[str, int] = {name: i for i, name in enumerate(CLASSES)}


def _palette() -> NDArray[np.uint8]:
    """Forty colours that are far apart: hues by the golden angle, three levels of lightness."""
    hue = (np.arange(len(CLASSES)) * 0.61803) % 1.0
    light = np.array([0.95, 0.7, 0.5])[np.arange(len(CLASSES)) % 3]
    ramp = np.clip(np.abs((hue[:, None] * 6 + [0.0, 4.0, 2.0]) % 6 - 3) - 1, 0, 1)
    return (255 * light[:, None] * (0.25 + 0.75 * ramp)).astype(np.uint8)


PALETTE: NDArray[np.uint8] = _palette()  # [40, 3], RGB
