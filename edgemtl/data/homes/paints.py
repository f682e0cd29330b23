"""What painted pictures share: smooth noise, likely colours, mixing; and floors, walls and furniture.

The pictures repeat at their borders.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float64]
SIDE = 256


def noise(rng: np.random.Generator, cells: int | tuple[int, int], octaves: int = 3) -> Image:
    """Smooth noise that repeats at the borders, mean 0, about -1..1; float64 [SIDE, SIDE]."""
    high, wide = (cells, cells) if isinstance(cells, int) else cells
    out = np.zeros((SIDE, SIDE))
    for k in range(octaves):
        grid = rng.standard_normal((min(SIDE, high << k), min(SIDE, wide << k))).astype(np.float32)
        padded = np.pad(grid, 2, mode="wrap")
        step = (SIDE / grid.shape[0], SIDE / grid.shape[1])
        size = (round(padded.shape[1] * step[1]), round(padded.shape[0] * step[0]))
        big = cv2.resize(padded, size, interpolation=cv2.INTER_CUBIC)
        y, x = round(2 * step[0]), round(2 * step[1])
        out += big[y : y + SIDE, x : x + SIDE] * 0.55**k
    return out / 1.6


def colour(rng: np.random.Generator, grey: float = 0.5, low: float = 0.1, high: float = 0.9) -> Image:
    """A colour in sRGB 0..1, often close to grey or beige, as things at home are."""
    level = rng.uniform(low, high)
    if rng.random() < grey:
        return np.clip(level + np.array([0.05, 0.0, -0.06]) * rng.uniform(-0.5, 2.0), 0.03, 0.97)
    return np.clip(level + (rng.random(3) - 0.5) * rng.uniform(0.2, 0.9), 0.03, 0.97)


def wood(rng: np.random.Generator) -> Image:
    """A colour of wood, sRGB."""
    base = np.array(
        [
            [0.62, 0.42, 0.25],
            [0.42, 0.25, 0.14],
            [0.72, 0.56, 0.38],
            [0.3, 0.18, 0.11],
            [0.55, 0.3, 0.17],
            [0.78, 0.68, 0.55],
            [0.5, 0.45, 0.4],
        ]
    )[rng.integers(7)]
    return base * rng.uniform(0.75, 1.2)


def mix(a: Image, b: Image, share: NDArray[Any]) -> Image:
    """One picture or colour over another; share [SIDE, SIDE] of the second, 0..1."""
    return a + (b - a) * np.clip(share, 0, 1)[..., None]


def planks(rng: np.random.Generator) -> Image:
    """Boards along x."""
    boards = int(rng.integers(4, 11))
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    row = np.floor(y * boards).astype(int)
    shift = rng.random(boards)
    joints = np.abs((x + shift[row]) % 1.0 - 0.5) > 0.5 - 1.2 / SIDE
    gap = np.abs((y * boards) % 1.0 - 0.5) > 0.5 - 1.2 * boards / SIDE
    tone = rng.uniform(-0.12, 0.12, boards)[row] * rng.uniform(0.3, 1.2)
    grain = noise(rng, (boards * 6, 3), 3) * rng.uniform(0.02, 0.09)
    image = wood(rng) * (1 + tone + grain)[..., None]
    return mix(image, image * 0.55, (joints | gap) * 1.0)


def veneer(rng: np.random.Generator) -> Image:
    """Wood of a piece of furniture, grain along y."""
    return wood(rng) * (1 + noise(rng, (3, 24), 3) * rng.uniform(0.03, 0.13))[..., None]


def tiles(rng: np.random.Generator) -> Image:
    """Tiles with joints, sometimes in two colours."""
    across, down = (int(n) for n in rng.integers(2, 7, 2)) if rng.random() < 0.4 else [int(rng.integers(2, 7))] * 2
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    i, j = np.floor(y * down).astype(int), np.floor(x * across).astype(int)
    tone = rng.uniform(-1, 1, (down, across))[i, j] * rng.uniform(0, 0.08)
    image = np.broadcast_to(colour(rng, 0.75, 0.35, 0.92), (SIDE, SIDE, 3)) * (1 + tone)[..., None]
    if rng.random() < 0.25:
        image = mix(image, colour(rng, 0.6), ((i + j) % 2) * 1.0)
    image = image * (1 + noise(rng, 10) * rng.uniform(0, 0.07))[..., None]
    joint = (np.abs((y * down) % 1 - 0.5) > 0.5 - 1.6 * down / SIDE) | (
        np.abs((x * across) % 1 - 0.5) > 0.5 - 1.6 * across / SIDE
    )
    return mix(image, colour(rng, 1.0, 0.3, 0.85), joint * 1.0)


def carpet(rng: np.random.Generator) -> Image:
    """A carpet: a colour with speckles."""
    image = colour(rng, 0.7, 0.2, 0.75) * np.ones((SIDE, SIDE, 1))
    speckle = rng.standard_normal((SIDE, SIDE)) * rng.uniform(0.03, 0.12)
    return image * (1 + noise(rng, 4) * 0.06 + speckle)[..., None]


def plaster(rng: np.random.Generator) -> Image:
    """Near white, all but even."""
    return 0.93 * (1 + noise(rng, 3) * 0.025 + rng.standard_normal((SIDE, SIDE)) * 0.006)[..., None] * np.ones(3)


def wallpaper(rng: np.random.Generator) -> Image:
    """Stripes, waves, clouds or dots in two near colours."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    a = colour(rng, 0.6, 0.4, 0.92)
    b = np.clip(a + (rng.random(3) - 0.5) * rng.uniform(0.05, 0.3), 0, 1)
    n = int(rng.integers(2, 9))
    kind = rng.integers(4)
    if kind == 0:
        share = (np.sin(2 * np.pi * n * x) > rng.uniform(-0.5, 0.5)) * 1.0
    elif kind == 1:
        share = (np.sin(2 * np.pi * n * x) * np.sin(2 * np.pi * n * y) > 0.4) * 1.0
    elif kind == 2:
        share = (noise(rng, n + 2, 2) > 0.3) * 1.0
    else:
        share = (np.hypot((x * n) % 1 - 0.5, (y * n) % 1 - 0.5) < 0.3) * 1.0
    return mix(a * np.ones((SIDE, SIDE, 1)), b, share)


def stone(rng: np.random.Generator) -> Image:
    """Counter tops."""
    image = colour(rng, 0.85, 0.1, 0.9) * np.ones((SIDE, SIDE, 1))
    vein = np.abs(noise(rng, 4, 4)) < 0.06
    speckle = rng.standard_normal((SIDE, SIDE)) * rng.uniform(0.01, 0.22)
    return mix(image * (1 + speckle)[..., None], colour(rng, 0.9), vein * rng.uniform(0, 0.6))
