"""Colours for classes and experts that people with any colour vision can tell apart.

SAFE was found by a greedy max-min search, then exchanges, over CIELAB distances as seen with normal vision and with
protanopia, deuteranopia and tritanopia (simulated by Machado et al., 2009, severity 1): the nearest two of the sixteen
stay 25 units apart for everyone, the first six 29. tests/media/test_palette.py measures that again.
"""

from __future__ import annotations

import colorsys

import numpy as np

from edgemtl.config import TaskConfig
from edgemtl.media.preprocess import Image

RGB = tuple[int, int, int]

SAFE: tuple[RGB, ...] = (
    (90, 120, 135),  # slate
    (255, 150, 0),  # orange
    (255, 240, 195),  # cream
    (180, 90, 255),  # violet
    (135, 15, 0),  # dark red
    (120, 255, 255),  # cyan
    (90, 0, 165),  # deep purple
    (180, 255, 120),  # light green
    (195, 165, 105),  # sand
    (75, 0, 255),  # blue
    (90, 165, 225),  # sky
    (105, 0, 105),  # plum
    (210, 75, 15),  # vermilion
    (165, 180, 165),  # grey green
    (45, 60, 60),  # near black
    (120, 105, 75),  # olive
)


def colours(count: int) -> Image:
    """uint8 RGB [count, 3]: SAFE as far as it goes; more than 16 are hues at three lightnesses, with no promise."""
    if count <= len(SAFE):
        return np.array(SAFE[:count], np.uint8)
    hues = [colorsys.hsv_to_rgb((i * 0.618034) % 1, 0.65, (0.95, 0.7, 0.45)[i % 3]) for i in range(count)]
    return np.round(np.array(hues) * 255).astype(np.uint8)


def class_names(task: TaskConfig) -> tuple[str, ...]:
    """The names of a task's classes, or their numbers."""
    return task.classes or tuple(str(i) for i in range(task.channels))


def class_colours(task: TaskConfig, *, safe: bool = False) -> Image:
    """The colours of a task's classes, uint8 RGB [channels, 3]: the bundle's own, or with `safe` (or where it names
    none) those of `colours`.
    """
    return np.array(task.palette, np.uint8) if task.palette and not safe else colours(task.channels)
