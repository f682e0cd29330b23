"""Painted surfaces: planks, tiles, carpets, wallpaper, cloth, book spines, pictures, views through windows.

Each is a small picture drawn from its own number, so that a process draws it once and all processes draw the same.
The pictures repeat at their borders, but for the last two kinds.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from edgemtl.data.homes.mesh import Texture
from edgemtl.data.homes.paints import (
    SIDE,
    Image,
    carpet,
    colour,
    mix,
    noise,
    planks,
    plaster,
    stone,
    tiles,
    veneer,
    wallpaper,
)

VARIANTS = 40  # pictures of a kind


def _cloth(rng: np.random.Generator) -> Image:
    """Blankets, curtains, cushions, clothes: plain, stripes, checks, flowers."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    image = colour(rng, 0.4, 0.12, 0.92) * np.ones((SIDE, SIDE, 1))
    kind = rng.integers(6)
    n = int(rng.integers(2, 12))
    other = colour(rng, 0.35, 0.1, 0.95)
    if kind == 1:
        image = mix(image, other, (np.sin(2 * np.pi * n * x) > rng.uniform(-0.6, 0.7)) * 1.0)
    elif kind == 2:
        image = mix(image, other, 0.5 * (np.sin(2 * np.pi * n * x) > 0) + 0.5 * (np.sin(2 * np.pi * n * y) > 0))
    elif kind == 3:
        spots = noise(rng, n + 4, 2)
        image = mix(mix(image, other, (spots > 0.45) * 1.0), colour(rng, 0.2), (spots < -0.6) * 1.0)
    elif kind == 4:
        image = mix(image, other, (np.hypot((x * n) % 1 - 0.5, (y * n) % 1 - 0.5) < 0.28) * 1.0)
    weave = rng.standard_normal((SIDE, SIDE)) * 0.04
    return image * (1 + noise(rng, 5) * 0.08 + weave)[..., None]


def _rug(rng: np.random.Generator) -> Image:
    y, x = np.abs(np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j])
    image = _cloth(rng)
    if rng.random() < 0.7:
        edge = np.maximum(x, y)
        for at in np.sort(rng.uniform(0.55, 0.97, int(rng.integers(1, 5)))):
            image = mix(image, colour(rng, 0.3), (np.abs(edge - at) < rng.uniform(0.01, 0.05)) * 1.0)
        n = rng.integers(3, 9)
        flower = np.cos(n * np.arctan2(y, x)) * 0.15 + 0.4 > np.hypot(x, y)
        image = mix(image, colour(rng, 0.3), flower * 0.8)
    return image


def _art(rng: np.random.Generator) -> Image:
    """What hangs in a frame: landscapes, portraits of blobs, prints, photographs of noise."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    sky, ground = colour(rng, 0.2, 0.4, 0.95), colour(rng, 0.2, 0.1, 0.7)
    line = rng.uniform(0.3, 0.8) + 0.12 * noise(rng, 2)[0][None]
    image = mix(sky * np.ones((SIDE, SIDE, 1)), ground, np.clip((y - line) * 40, 0, 1))
    for _ in range(int(rng.integers(1, 12))):
        cx, cy, rx, ry = rng.random(2).tolist() + rng.uniform(0.03, 0.3, 2).tolist()
        inside = (
            np.hypot((x - cx) / rx, (y - cy) / ry) < 1
            if rng.random() < 0.6
            else (abs(x - cx) < rx) & (abs(y - cy) < ry)
        )
        image = mix(image, colour(rng, 0.25, 0.05, 0.95), inside * rng.uniform(0.4, 1))
    image = image * (1 + 0.25 * noise(rng, 6, 4) * rng.uniform(0.1, 1))[..., None]
    if rng.random() < 0.35:  # black and white
        image = np.repeat(image.mean(-1, keepdims=True), 3, 2)
    if rng.random() < 0.5:  # a mat around it
        image = mix(
            image,
            colour(rng, 0.95, 0.7, 0.97),
            (np.maximum(abs(x - 0.5), abs(y - 0.5)) > rng.uniform(0.32, 0.45)) * 1.0,
        )
    return image


def _spines(rng: np.random.Generator) -> Image:
    """The backs of a row of books, title marks included; repeats along x."""
    image = np.zeros((SIDE, SIDE, 3))
    x = 0
    while x < SIDE:
        wide = int(rng.integers(7, 24))
        image[:, x : x + wide] = colour(rng, 0.35, 0.06, 0.85)
        other = colour(rng, 0.4, 0.2, 0.95)
        for _ in range(int(rng.integers(1, 4))):
            top = int(rng.integers(10, 220))
            image[top : top + int(rng.integers(3, 40)), x + 2 : x + wide - 2] = other
        image[:, min(SIDE - 1, x + wide - 1)] *= 0.4
        x += wide
    return image


def _paper(rng: np.random.Generator) -> Image:
    """A written or printed page."""
    image = np.full((SIDE, SIDE, 3), rng.uniform(0.85, 0.97))
    image *= 1 - 0.06 * rng.random(3)
    for top in range(20, SIDE - 20, int(rng.integers(9, 16))):
        if rng.random() < 0.85:
            image[top : top + 4, 22 : int(rng.integers(120, 236))] *= rng.uniform(0.35, 0.75)
    if rng.random() < 0.5:
        a, b = rng.integers(20, 150, 2)
        image[a : a + 80, b : b + 90] = _art(rng)[:80, :90]
    return image


def _screen(rng: np.random.Generator) -> Image:
    """A lit screen: windows of text, or a film."""
    if rng.random() < 0.4:
        return _art(rng)
    image = colour(rng, 0.3, 0.2, 0.6) * np.ones((SIDE, SIDE, 1))
    for _ in range(int(rng.integers(1, 4))):
        a, b = rng.integers(0, 120, 2)
        image[a : a + 130, b : b + 130] = cv2.resize(_paper(rng), (130, 130))[: SIDE - a, : SIDE - b]
    return image


def _outside(rng: np.random.Generator) -> Image:
    """What a window shows by day: sky, often burnt out, trees, the wall of a house."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    sky = np.array([0.75, 0.86, 1.0]) * rng.uniform(0.8, 1.0)
    image = mix(np.ones((SIDE, SIDE, 3)), sky, y * 0 + rng.uniform(0.1, 1))
    green = np.array([0.28, 0.36, 0.2]) * rng.uniform(0.4, 1.4) + rng.uniform(0, 0.12, 3)
    trees = y > rng.uniform(0.1, 0.9) + 0.2 * noise(rng, 5, 4)
    image = mix(image, green * (1 + 0.5 * noise(rng, 16, 4))[..., None], trees * 1.0)
    if rng.random() < 0.4:
        house = (np.abs(x - rng.random()) < rng.uniform(0.1, 0.3)) & (y > rng.uniform(0.2, 0.7))
        image = mix(image, colour(rng, 0.8, 0.3, 0.8), house * 1.0)
    return image


_KINDS = {
    "planks": planks, "veneer": veneer, "tiles": tiles, "carpet": carpet, "plaster": plaster,
    "wallpaper": wallpaper, "cloth": _cloth, "rug": _rug, "stone": stone, "art": _art, "spines": _spines,
    "paper": _paper, "screen": _screen, "outside": _outside,
}  # fmt: skip


@lru_cache(maxsize=1024)
def pattern(kind: str, number: int) -> Texture:
    """Picture `number` of a kind; a process keeps what it has drawn."""
    rng = np.random.default_rng(np.random.SeedSequence([list(_KINDS).index(kind), number]))
    image = _KINDS[kind](rng)
    return Texture.of((np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8))


def draw(kind: str, rng: np.random.Generator) -> Texture:
    """Any picture of a kind."""
    return pattern(kind, int(rng.integers(VARIANTS)))
