"""Procedural solid textures: a material is a few numbers, evaluated in the solid's own metric frame.

`sample_*` functions draw the material tendencies of furniture (doors and tables often wood, chairs saturated, ...) with
deliberate overlap between classes, so that a network has to use shape as well as colour. `albedo` evaluates the
textures of many solids at once: points are grouped by texture, never by solid.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Colour = tuple[float, float, float]


class Texture(IntEnum):
    """What is drawn with the material's colours."""

    FLAT = 0
    CHECK = 1
    STRIPE = 2
    WOOD = 3
    PLANK = 4
    NOISE = 5
    TILE = 6
    ART = 7
    DOTS = 8
    PIE = 9


@dataclass(frozen=True)
class Material:
    """Colours are linear RGB in 0..1; `frequency` is cycles per metre (sectors, for PIE); `glow` is emitted light."""

    texture: Texture
    first: Colour
    second: Colour
    third: Colour = (0.5, 0.5, 0.5)
    frequency: float = 4.0
    phase: Colour = (0.0, 0.0, 0.0)
    axis: int = 0
    gloss: float = 0.0
    glow: float = 0.0


def hsv(rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]) -> Colour:
    """A colour of any hue with saturation and value in the given ranges, converted to linear light."""
    r, g, b = colorsys.hsv_to_rgb(float(rng.random()), float(rng.uniform(*saturation)), float(rng.uniform(*value)))
    return (r**2.2, g**2.2, b**2.2)


def shade(colour: Colour, factor: float) -> Colour:
    """The colour, lighter or darker."""
    r, g, b = (min(0.95, max(0.01, c * factor)) for c in colour)
    return (r, g, b)


def _material(
    rng: np.random.Generator,
    texture: Texture,
    colours: Sequence[Colour],
    frequency: float,
    gloss: float = 0.0,
    axis: int | None = None,
) -> Material:
    x, y, z = (float(v) for v in rng.uniform(0.0, 1.0, 3))
    chosen = int(rng.integers(3)) if axis is None else axis
    third = colours[2] if len(colours) > 2 else colours[0]
    return Material(texture, colours[0], colours[1], third, frequency, (x, y, z), chosen, gloss)


def sample_wood(rng: np.random.Generator, planks: bool = False, axis: int | None = None) -> Material:
    """Brownish wood from pale birch to dark walnut; `planks` lays boards."""
    r, g, b = colorsys.hsv_to_rgb(
        float(rng.uniform(0.04, 0.11)), float(rng.uniform(0.35, 0.75)), float(rng.uniform(0.3, 0.85))
    )
    base = (r**2.2, g**2.2, b**2.2)
    texture = Texture.PLANK if planks else Texture.WOOD
    frequency = float(rng.uniform(5, 10)) if planks else float(rng.uniform(8, 22))
    return _material(
        rng,
        texture,
        [base, shade(base, float(rng.uniform(0.45, 0.75)))],
        frequency,
        float(rng.uniform(0.0, 0.15)),
        axis,
    )


def sample_solid(rng: np.random.Generator, saturated: bool = True) -> Material:
    """Plain paint or plastic, saturated or muted."""
    colour = hsv(rng, (0.55, 0.95), (0.3, 0.95)) if saturated else hsv(rng, (0.0, 0.35), (0.15, 0.95))
    return _material(rng, Texture.FLAT, [colour, shade(colour, 0.8)], 2.0, float(rng.uniform(0, 0.3)))


def sample_pattern(rng: np.random.Generator, frequency: tuple[float, float], textures: Sequence[Texture]) -> Material:
    """A two-colour pattern drawn from `textures`."""
    first = hsv(rng, (0.2, 0.95), (0.25, 0.95))
    second = hsv(rng, (0.0, 0.9), (0.1, 0.95)) if rng.random() < 0.6 else shade(first, float(rng.uniform(0.25, 0.6)))
    texture = textures[int(rng.integers(len(textures)))]
    return _material(rng, texture, [first, second], float(rng.uniform(*frequency)), float(rng.uniform(0, 0.2)))


def sample_wall(rng: np.random.Generator) -> Material:
    """Pale paint, plaster or wallpaper."""
    base = hsv(rng, (0.0, 0.4), (0.55, 0.97))
    pick = rng.random()
    if pick < 0.55:
        return _material(rng, Texture.FLAT, [base, shade(base, 0.93)], 1.5)
    if pick < 0.75:
        return _material(
            rng, Texture.NOISE, [base, shade(base, float(rng.uniform(0.75, 0.9)))], float(rng.uniform(2, 8))
        )
    if pick < 0.9:
        return _material(
            rng,
            Texture.STRIPE,
            [base, shade(base, float(rng.uniform(0.7, 0.9)))],
            float(rng.uniform(2, 6)),
            axis=int(rng.integers(2)),
        )
    return _material(rng, Texture.TILE, [base, shade(base, 0.6)], float(rng.uniform(3, 7)))


def sample_floor(rng: np.random.Generator) -> Material:
    """Boards, tiles, chequers or carpet."""
    pick = rng.random()
    if pick < 0.45:
        return sample_wood(rng, planks=True, axis=int(rng.integers(2)))
    base = hsv(rng, (0.0, 0.45), (0.25, 0.85))
    if pick < 0.65:
        return _material(rng, Texture.TILE, [base, shade(base, 0.5)], float(rng.uniform(1.5, 4)), 0.1)
    if pick < 0.8:
        return _material(
            rng, Texture.CHECK, [base, shade(base, float(rng.uniform(0.3, 0.7)))], float(rng.uniform(1.5, 4)), 0.1
        )
    return _material(rng, Texture.NOISE, [base, shade(base, float(rng.uniform(0.6, 0.85)))], float(rng.uniform(6, 20)))


def sample_art(rng: np.random.Generator) -> Material:
    """A busy three-colour painting, or now and then a print with a plain pattern."""
    if rng.random() < 0.25:
        return sample_pattern(rng, (4, 10), (Texture.CHECK, Texture.STRIPE, Texture.NOISE, Texture.DOTS))
    colours = [hsv(rng, (0.3, 1.0), (0.15, 1.0)) for _ in range(3)]
    return _material(rng, Texture.ART, colours, float(rng.uniform(5, 13)))


def sample_glow(rng: np.random.Generator) -> Material:
    """A lit lamp shade or panel, from warm to cool white."""
    warm = float(rng.uniform(0, 1))
    colour = (1.0, 0.95 - 0.15 * warm, 0.9 - 0.4 * warm)
    return Material(Texture.FLAT, colour, colour, glow=float(rng.uniform(0.9, 1.6)))


def pack(materials: Sequence[Material]) -> dict[str, NDArray[np.float32] | NDArray[np.int64]]:
    """Material fields as arrays over solids, for `albedo` to gather from."""
    return {
        "texture": np.array([m.texture for m in materials], np.int64),
        "axis": np.array([m.axis for m in materials], np.int64),
        "colours": np.array([[m.first, m.second, m.third] for m in materials], np.float32),
        "frequency": np.array([m.frequency for m in materials], np.float32),
        "phase": np.array([m.phase for m in materials], np.float32),
        "gloss": np.array([m.gloss for m in materials], np.float32),
        "glow": np.array([m.glow for m in materials], np.float32),
    }


def _hash(cell: Floats, phase: Floats) -> Floats:
    """A repeatable pseudo-random number in [0, 1) per integer cell."""
    return np.modf(np.abs(np.sin(cell * np.float32(12.9898) + phase * np.float32(40.0))) * np.float32(437.58))[0]


_WAVES = np.array([[0.8, 0.5, -0.3], [-1.1, 1.5, 0.7], [2.6, 1.9, -2.4], [-4.1, 5.3, 4.7]], np.float32)


def _noise(p: Floats, phase: Floats) -> Floats:
    """Smooth noise in about 0..1 as four octaves of plane waves."""
    total = np.full(len(p), 0.5, np.float32)
    for octave, wave in enumerate(_WAVES):
        angle = p[:, 0] * wave[0] + p[:, 1] * wave[1] + p[:, 2] * wave[2] + phase[:, octave % 3] * np.float32(6.2831853)
        total += np.float32(0.28 * 0.6**octave) * np.sin(angle)
    return np.clip(total, 0, 1)


def _mix(
    texture: Texture, local: Floats, p: Floats, q: Floats, axis: NDArray[np.int64], phase: Floats, freq: Floats
) -> Floats:
    """Weight of the second colour, float32 [N]. p: `local` in metres; q: p * frequency + phase."""
    if texture == Texture.CHECK:
        return (np.floor(q).sum(1) % 2).astype(np.float32)
    if texture == Texture.STRIPE:
        along = np.take_along_axis(q, axis[:, None], 1)[:, 0]
        return (along - np.floor(along) > 0.5).astype(np.float32)
    if texture == Texture.WOOD:
        grain = np.take_along_axis(p, axis[:, None], 1)[:, 0]
        across = p.sum(1) - grain
        return np.float32(0.5) + np.float32(0.5) * np.sin(
            across * freq * 3 + np.sin(grain * 5 + phase[:, 0] * 6) * 2 + phase[:, 1] * 6
        )
    if texture == Texture.PLANK:
        across = np.take_along_axis(q, axis[:, None], 1)[:, 0]
        along = np.take_along_axis(p, 1 - np.minimum(axis[:, None], 1), 1)[:, 0]
        board = np.floor(across)
        piece = np.floor(along * np.float32(0.8) + _hash(board, phase[:, 1]) * 7)
        tone = _hash(board * 3 + piece * 7, phase[:, 0]) * np.float32(0.6)
        gap = np.abs(across - board - np.float32(0.5)) > 0.47
        return np.where(gap, np.float32(1.2), tone + np.float32(0.1) * np.sin(along * 30 + board))
    if texture == Texture.TILE:
        cell = np.abs(q - np.floor(q) - np.float32(0.5))
        # the coordinate across a box's face is constant and could paint all of it as grout: leave it out
        cell[np.arange(len(p)), np.abs(local).argmax(1)] = 0
        return (cell.max(1) > 0.46).astype(np.float32)
    if texture == Texture.DOTS:
        cell = q - np.floor(q) - np.float32(0.5)
        return ((cell * cell).sum(1) < 0.13).astype(np.float32)
    if texture == Texture.NOISE:
        return _noise(q, phase)
    return np.zeros(len(p), np.float32)


def albedo(
    packed: dict[str, NDArray[np.float32] | NDArray[np.int64]], solid: NDArray[np.integer], local: Floats, scale: Floats
) -> Floats:
    """Reflectance at surface points.

    solid: [N] index of the solid each point lies on; local: float32 [N, 3] in the unit solid's frame;
    scale: float32 [N, 3] edge lengths in metres. Returns linear RGB, float32 [N, 3].
    """
    texture = packed["texture"][solid]
    colours = packed["colours"]
    out = np.empty((len(solid), 3), np.float32)
    for code in Texture:
        at = np.flatnonzero(texture == code)
        if not len(at):
            continue
        s = solid[at]
        freq, phase, axis = packed["frequency"][s], packed["phase"][s], packed["axis"][s].astype(np.int64)
        p = local[at] * scale[at]
        q = p * freq[:, None] + phase
        colour = colours[s]
        if code == Texture.ART:
            wave = np.sin(q + np.float32(1.7) * np.sin(q[:, [1, 2, 0]] * np.float32(0.8) + phase * 6))
            band = np.sin(wave.sum(1) * 2 + phase[:, 0] * 6)
            pick = (band > -0.2).astype(np.int64) + (band > 0.5)
            out[at] = colour[np.arange(len(at)), pick]
        elif code == Texture.PIE:
            turn = np.arctan2(local[at, 1], local[at, 0]) * np.float32(1 / 6.2831853) + np.float32(0.5)
            odd = np.floor(turn * np.round(freq) * 2).astype(np.int64) & 1
            out[at] = colour[np.arange(len(at)), odd]
        elif code == Texture.FLAT:
            out[at] = colour[:, 0]
        else:
            mix = _mix(code, local[at], p, q, axis, phase, freq)[:, None]
            out[at] = colour[:, 0] + (colour[:, 1] - colour[:, 0]) * mix
    return np.maximum(out, np.float32(0.005))
