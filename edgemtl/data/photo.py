"""What a camera does to a picture, as augmentation: light, lens, sensor and file. Labels and geometry stay.

The order is a camera's. In linear light: blur of lens or motion, vignetting, exposure and white balance, shot and read
noise (the model of Foi et al., "Practical Poissonian-Gaussian noise modeling", 2008). Then the tone curve, and a JPEG
file of some quality. Rendered pictures lack all of this, and photographs have more of it in a dark room than a labelled
set shows. What is drawn is a pure function of (seed, epoch, index), apart from what `draw` of
`edgemtl.data.augment` takes.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
Floats = NDArray[np.float32]

# How often each step happens when the recipe's `photo` is 1.
CHANCES = {"exposure": 0.6, "balance": 0.5, "tone": 0.4, "noise": 0.5, "blur": 0.35, "vignette": 0.3, "jpeg": 0.5}
LEVELS = 1 << 14  # of the tone curve's table: a step in the darkest part is a fifth of an 8-bit level


@dataclass(frozen=True)
class Shot:
    """How one picture was taken; the defaults change nothing."""

    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)  # of linear light: exposure times white balance
    gamma: float = 1.0  # of the tone curve, beside sRGB's; below 1 is brighter
    shot: float = 0.0  # variance of the noise per unit of light; full light is 1
    read: float = 0.0  # standard deviation of the noise in the dark
    sigma: float = 0.0  # pixels, of a Gaussian blur
    motion: float = 0.0  # pixels, length of a motion blur
    angle: float = 0.0  # degrees, its direction
    vignette: float = 0.0  # share of light that the corners lose
    quality: int = 0  # of JPEG; 0: not compressed
    seed: int = 0  # of the noise

    @property
    def linear(self) -> bool:
        """Whether anything but the compression is done."""
        return self != Shot(quality=self.quality, seed=self.seed)


def draw_shot(photo: float, seed: int, epoch: int, index: int) -> Shot:
    """How the picture `index` is taken in one epoch. `photo`, 0 to 1, is multiplied into every step's chance."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, epoch, index, 1]))
    happens = {name: bool(rng.random() < photo * chance) for name, chance in CHANCES.items()}
    # All numbers are drawn whether they are used or not, so that one step does not change another.
    stops, red, blue = rng.uniform(-1.5, 1.0), *np.exp(rng.uniform(-0.25, 0.25, 2))
    gamma, shot, read = rng.uniform(0.75, 1.3), *np.exp(rng.uniform(np.log([2e-4, 1e-3]), np.log([8e-3, 2e-2])))
    shaken, sigma = bool(rng.random() < 0.4), rng.uniform(0.3, 1.2)
    motion, angle, vignette = rng.uniform(1.5, 6), rng.uniform(0, 180), rng.uniform(0.1, 0.6)
    quality, noise_seed = int(rng.integers(20, 96)), int(rng.integers(1 << 32))
    exposure = 2.0**stops if happens["exposure"] else 1.0
    red, blue = (float(red), float(blue)) if happens["balance"] else (1.0, 1.0)
    return Shot(
        gain=(exposure * red, exposure, exposure * blue),
        gamma=float(gamma) if happens["tone"] else 1.0,
        shot=float(shot) if happens["noise"] else 0.0,
        read=float(read) if happens["noise"] else 0.0,
        sigma=float(sigma) if happens["blur"] and not shaken else 0.0,
        motion=float(motion) if happens["blur"] and shaken else 0.0,
        angle=float(angle) if happens["blur"] and shaken else 0.0,
        vignette=float(vignette) if happens["vignette"] else 0.0,
        quality=quality if happens["jpeg"] else 0,
        seed=noise_seed,
    )


def take(picture: Picture, how: Shot) -> Picture:
    """RGB uint8 [H, W, 3] as this camera gives it; the same picture if nothing happens."""
    out = _expose(picture, how) if how.linear else picture
    if how.quality:
        # The channels' order matters to JPEG: its colour differences are half as fine.
        _, data = cv2.imencode(".jpg", out[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, how.quality])
        out = np.ascontiguousarray(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))[..., ::-1], np.uint8)
    return out


def _expose(picture: Picture, how: Shot) -> Picture:
    light = np.asarray(cv2.LUT(np.ascontiguousarray(picture), _light()), np.float32)
    if how.sigma:
        light = np.asarray(cv2.GaussianBlur(light, (0, 0), how.sigma), np.float32)
    if how.motion:
        light = np.asarray(cv2.filter2D(light, -1, _streak(how.motion, how.angle)), np.float32)
    if how.vignette:
        light *= np.array(how.gain, np.float32) * (1 - np.float32(how.vignette) * _radius(*light.shape[:2]))
    elif how.gain != (1.0, 1.0, 1.0):
        light *= np.array(how.gain, np.float32)
    if how.shot or how.read:
        noise = np.random.default_rng(how.seed).standard_normal(light.shape, np.float32)
        deviation = light * np.float32(how.shot)
        deviation += np.float32(how.read**2)
        noise *= np.sqrt(deviation, out=deviation)
        light += noise
    light *= LEVELS - 1
    light += 0.5
    np.clip(light, 0, LEVELS - 1, out=light)
    return np.asarray(np.take(_curve(how.gamma), light.astype(np.uint16), mode="clip"), np.uint8)


@functools.cache
def _light() -> Floats:
    """Linear light, 0 to 1, of the 256 sRGB values."""
    value = np.arange(256) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4).astype(np.float32)


@functools.cache
def _srgb() -> NDArray[np.float64]:
    """sRGB values, 0 to 1, of `LEVELS` steps of linear light."""
    light = np.arange(LEVELS) / (LEVELS - 1)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def _curve(gamma: float) -> Picture:
    """The byte of each of `LEVELS` steps of linear light."""
    return (_srgb() ** gamma * 255 + 0.5).astype(np.uint8)


@functools.lru_cache(maxsize=4)
def _radius(height: int, width: int) -> Floats:
    """Squared distance from the middle, 1 in the corners, [H, W, 1]."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    y, x = y - (height - 1) / 2, x - (width - 1) / 2
    return np.asarray((x * x + y * y) / (x * x + y * y).max(), np.float32)[..., None]


def _streak(length: float, degrees: float) -> Floats:
    """The kernel of a straight motion through its middle: sum 1, anti-aliased."""
    half = int(np.ceil(length / 2))
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float32)
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    along, across = np.abs(c * x + s * y), np.abs(c * y - s * x)
    kernel = np.clip(length / 2 + 0.5 - along, 0, 1) * np.clip(1 - across, 0, 1)
    return np.asarray(kernel / kernel.sum(), np.float32)
