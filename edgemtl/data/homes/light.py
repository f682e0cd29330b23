"""Lamps and daylight: cheap light with soft shadows on every second pixel, spread to the pixels between.

Direct light is worked out without shadows at every pixel; the share of it that arrives, and how far the surroundings
are in the way of the light that comes from all sides, are sampled with few rays on a coarse grid and smoothed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgemtl.data.homes.trace import World, dot
from edgemtl.data.rooms.shade import hemisphere

Floats = NDArray[np.float32]
OFFSET = np.float32(4e-3)  # metres that shadow rays start above their surface


@dataclass(frozen=True)
class Light:
    """A lamp (`facing` None) or a panel: a window, or a ceiling light that shines along `facing`.

    `colour` is its power per channel; `u` and `v` are half its sides, vectors in metres (a lamp: `u` is its radius).
    Shadow rays end `shell` metres before it, so that a shade does not darken its own lamp. `room` is its room.
    """

    centre: tuple[float, float, float]
    colour: tuple[float, float, float]
    facing: tuple[float, float, float] | None = None
    u: tuple[float, float, float] = (0.04, 0.0, 0.0)
    v: tuple[float, float, float] = (0.0, 0.0, 0.0)
    shell: float = 0.0
    room: int = 0


class Lights:
    """Lights as arrays."""

    def __init__(self, lights: list[Light]) -> None:
        self.centre = np.array([light.centre for light in lights], np.float32).reshape(-1, 3)
        self.colour = np.array([light.colour for light in lights], np.float32).reshape(-1, 3)
        self.facing = np.array([light.facing or (0, 0, 0) for light in lights], np.float32).reshape(-1, 3)
        self.panel = np.array([light.facing is not None for light in lights], bool)
        self.u = np.array([light.u for light in lights], np.float32).reshape(-1, 3)
        self.v = np.array([light.v for light in lights], np.float32).reshape(-1, 3)
        self.shell = np.array([light.shell for light in lights], np.float32)
        area = 4 * np.linalg.norm(self.u, axis=1) * np.linalg.norm(self.v, axis=1)
        self.soft = np.where(self.panel, np.maximum(0.4 * area, 0.2), 0.12).astype(np.float32)

    def arriving(self, position: Floats, normal: Floats) -> Floats:
        """Share of each light's power that would arrive with nothing in between, float32 [N, L]."""
        out = np.empty((len(position), len(self.centre)), np.float32)
        for k in range(len(self.centre)):
            to = self.centre[k] - position
            square = dot(to, to)
            inverse = 1 / np.sqrt(square + np.float32(1e-6))
            facing = np.maximum(dot(to, normal) * inverse, 0)
            if self.panel[k]:
                facing *= np.maximum(-dot(to, self.facing[k]) * inverse, 0)
            out[:, k] = facing / np.maximum(square, self.soft[k])
        return out

    def tint(self, arriving: Floats) -> Floats:
        """Colour of the light, float32 [N, 3]."""
        out = np.zeros((len(arriving), 3), np.float32)
        for k, colour in enumerate(self.colour):
            out += arriving[:, k, None] * colour
        return out

    def reach(self, world: World, position: Floats, normal: Floats, arriving: Floats, draws: Floats) -> Floats:
        """Share of the arriving light that is not blocked; one shadow ray per draw, draws float32 [N, S, 3]; [N]."""
        if not len(self.centre):
            return np.ones(len(position), np.float32)
        strength = arriving * self.colour.sum(1)
        steps = np.cumsum(strength, 1)
        live = np.flatnonzero(steps[:, -1] > 1e-6)
        out = np.ones(len(position), np.float32)
        if not len(live):
            return out
        start = position[live] + normal[live] * OFFSET
        count = draws.shape[1]
        u = draws[live].reshape(-1, 3)
        base, steps = np.repeat(start, count, 0), np.repeat(steps[live], count, 0)
        pick = np.minimum((u[:, :1] * steps[:, -1:] > steps).sum(1), len(self.centre) - 1)
        offset = u[:, 1:] * 2 - 1
        target = self.centre[pick] + self.u[pick] * offset[:, :1]
        sideways = np.where(self.panel[pick][:, None], self.v[pick], self.u[pick][:, [2, 0, 1]])
        target += sideways * offset[:, 1:]
        to = target - base
        distance = np.sqrt(dot(to, to)) + np.float32(1e-6)
        limit = np.maximum(1 - (self.shell[pick] + np.float32(0.03)) / distance, np.float32(1e-3))
        free = ~world.blocked(base, to, limit.astype(np.float32))
        out[live] = free.reshape(-1, count).mean(1, dtype=np.float32)
        return out


def openness(world: World, position: Floats, normal: Floats, draws: Floats, reach: float) -> Floats:
    """Share of the half space above a surface that is free for `reach` metres; draws float32 [N, S, 2]; float32 [N]."""
    count = draws.shape[1]
    n = np.repeat(normal, count, 0)
    away = hemisphere(n, draws.reshape(-1, 2))
    start = np.repeat(position + normal * OFFSET, count, 0)
    limit = np.full(len(away), reach, np.float32)
    return (~world.blocked(start, away, limit)).reshape(-1, count).mean(1, dtype=np.float32)


def spread(
    value: Floats,
    coarse: tuple[NDArray[np.int64], Floats, Floats],
    fine: tuple[NDArray[np.int64], Floats, Floats],
    size: tuple[int, int],
) -> Floats:
    """Values [h, w, C] of every second pixel to all pixels [H, W, C], from neighbours on the same surface.

    coarse and fine: instance [h, w], normal [h, w, 3] and position [h, w, 3], and the same at full size.
    """
    height, width = size
    y, x = np.arange(height), np.arange(width)
    total = np.zeros((height, width, value.shape[-1]), np.float32)
    weight = np.zeros((height, width, 1), np.float32)
    instance, normal, point = fine
    for dy in (0, 1):
        j = np.minimum(y // 2 + dy, value.shape[0] - 1)
        wy = np.where(dy, (y % 2) * 0.5, 1 - (y % 2) * 0.5).astype(np.float32)
        for dx in (0, 1):
            i = np.minimum(x // 2 + dx, value.shape[1] - 1)
            wx = np.where(dx, (x % 2) * 0.5, 1 - (x % 2) * 0.5).astype(np.float32)
            at = (j[:, None], i[None])
            gap = coarse[2][at] - point
            off = np.abs(dot(gap, normal))
            like = (coarse[0][at] == instance) & (dot(coarse[1][at], normal) > 0.8) & (off < 0.03)
            share = (wy[:, None] * wx[None] + np.float32(1e-4)) * np.where(like, np.float32(1), np.float32(2e-3))
            total += share[..., None] * value[at]
            weight += share[..., None]
    return total / weight
