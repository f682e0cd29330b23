"""Light: area lights with soft shadows, one diffuse bounce, a small highlight, and the tone curve.

Noise is kept off with two old tricks rather than many rays. Interleaved sampling (Keller and Heidrich, "Interleaved
Sampling", 2001): neighbouring pixels use different members of one low-discrepancy set, and a filter as wide as the
pattern averages all of them. And a ratio: the direct light is computed without shadows in closed form, only the share
that reaches the surface is sampled and filtered.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgemtl.data.rooms.raycast import Caster
from edgemtl.data.rooms.scene import Light

Floats = NDArray[np.float32]

AMBIENT = np.float32(0.12)  # of the mean direct light: stands for the second and later bounces
OFFSET = np.float32(2e-3)  # metres that shadow rays start above their surface


@dataclass(frozen=True)
class Lamps:
    """A scene's lights as arrays, [L] or [L, 3] float32."""

    centre: Floats
    colour: Floats
    half: Floats
    radius: Floats
    shell: Floats

    @staticmethod
    def of(lights: list[Light]) -> Lamps:
        return Lamps(
            np.array([light.centre for light in lights], np.float32),
            np.array([np.multiply(light.colour, light.power) for light in lights], np.float32),
            np.array([(light.half_x, light.half_y, 0.0) for light in lights], np.float32),
            np.array([light.radius for light in lights], np.float32),
            np.array([light.shell for light in lights], np.float32),
        )

    def unshadowed(self, position: Floats, normal: Floats) -> Floats:
        """Share of each light's power that would arrive with nothing in between, float32 [N, L]."""
        out = np.empty((len(position), len(self.centre)), np.float32)
        for k, centre in enumerate(self.centre):
            to = centre - position
            square = (to * to).sum(1)
            distance = np.sqrt(square) + np.float32(1e-6)
            facing = np.maximum((to * normal).sum(1) / distance, 0)
            if self.radius[k] > 0:
                out[:, k] = facing / np.maximum(square, self.shell[k] ** 2)
            else:
                down = np.maximum(-to[:, 2] / distance * np.float32(-1.0), 0)
                out[:, k] = facing * down / np.maximum(square, np.float32(0.25))
        return out

    def reach(self, caster: Caster, position: Floats, normal: Floats, arriving: Floats, draws: Floats) -> Floats:
        """Share of the arriving light that is not blocked, from one shadow ray per draw.

        arriving: float32 [N, L] from `unshadowed`; draws: float32 [N, S, 3] in 0..1. Returns float32 [N]. A light is
        picked with a probability proportional to what it sends, so the mean over rays is the share itself.
        """
        strength = arriving * self.colour.sum(1)
        steps = np.cumsum(strength, 1)
        total = steps[:, -1:]
        live = np.flatnonzero(total[:, 0] > 1e-7)
        hit = np.zeros(len(position), np.float32)
        start = position[live] + normal[live] * OFFSET
        for s in range(draws.shape[1]):
            u = draws[live, s]
            pick = np.minimum((u[:, :1] * total[live] > steps[live]).sum(1), len(self.centre) - 1)
            offset = u[:, 1:] * 2 - 1
            target = self.centre[pick].copy()
            target[:, :2] += offset * self.half[pick, :2]
            ball = self.radius[pick] > 0
            # a ball's sample lies on the disc that faces the surface, spanned by two vectors across the view of it
            to = self.centre[pick] - start
            across = np.stack([-to[:, 1], to[:, 0], np.zeros(len(to), np.float32)], 1)
            across /= np.sqrt((across * across).sum(1, keepdims=True)) + np.float32(1e-6)
            distance = np.sqrt((to * to).sum(1)) + np.float32(1e-6)
            other = np.cross(to, across) / distance[:, None]
            turn = u[:, 1:2] * np.float32(2 * np.pi)
            spread = (self.radius[pick][:, None] * np.sqrt(u[:, 2:3])).astype(np.float32)
            target += spread * (np.cos(turn) * across + np.sin(turn) * other)
            limit = np.where(ball, 1 - self.shell[pick] / distance, np.float32(0.999)).astype(np.float32)
            free = ~caster.blocked(start, target - start, np.maximum(limit, np.float32(1e-3)))
            hit[live] += free
        return hit / np.float32(draws.shape[1])

    def highlight(self, position: Floats, normal: Floats, view: Floats, arriving: Floats) -> Floats:
        """Blinn-Phong highlight (exponent 32) per unit gloss, float32 [N, 3]; view: from the surface to the eye."""
        out = np.zeros((len(position), 3), np.float32)
        for k, centre in enumerate(self.centre):
            to = centre - position
            middle = to / (np.sqrt((to * to).sum(1, keepdims=True)) + np.float32(1e-6)) + view
            middle /= np.sqrt((middle * middle).sum(1, keepdims=True)) + np.float32(1e-6)
            shine = np.maximum((middle * normal).sum(1), 0)
            for _ in range(5):
                shine = shine * shine
            out += (shine * arriving[:, k])[:, None] * (self.colour[k] * np.float32(4.0))
        return out


def pattern(height: int, width: int, cell: int, rays: int, size: int, rng: np.random.Generator) -> Floats:
    """Interleaved low-discrepancy numbers, float32 [height * width, rays, size] in 0..1.

    Pixels `cell` apart share numbers; the cell's pixels together use one Kronecker set of cell * cell * rays points,
    shifted by a random vector that makes pictures differ.
    """
    rank = rng.permutation(cell * cell).reshape(cell, cell)
    y, x = np.arange(height) % cell, np.arange(width) % cell
    index = rank[y][:, x].reshape(-1, 1) + np.arange(rays) * cell * cell
    # the generalised golden ratio: x**(size + 1) = x + 1 has the root whose powers spread evenly
    root = 2.0
    for _ in range(40):
        root = (1 + root) ** (1 / (size + 1))
    step = root ** -np.arange(1.0, size + 1)
    return np.asarray(np.modf(index[..., None] * step + rng.random(size))[0], np.float32)


def hemisphere(normal: Floats, draws: Floats) -> Floats:
    """Cosine-weighted directions about the normals; draws float32 [N, 2]. Returns float32 [N, 3], unit."""
    turn = draws[:, 0] * np.float32(2 * np.pi)
    wide, up = np.sqrt(draws[:, 1]), np.sqrt(1 - draws[:, 1])
    x, y, z = normal[:, 0], normal[:, 1], normal[:, 2]
    # Duff et al., "Building an Orthonormal Basis, Revisited" (2017)
    sign = np.where(z >= 0, np.float32(1), np.float32(-1))
    a = -1 / (sign + z)
    b = x * y * a
    u, v = np.cos(turn) * wide, np.sin(turn) * wide
    return np.stack(
        [
            u * (1 + sign * x * x * a) + v * b + up * x,
            u * sign * b + v * (sign + y * y * a) + up * y,
            -u * sign * x - v * y + up * z,
        ],
        1,
    ).astype(np.float32)


def tone(linear: Floats, exposure: float) -> Floats:
    """Linear light to display values 0..1: exposure, Reinhard's curve with white at 4, gamma 2.2."""
    x = np.maximum(linear * np.float32(exposure), 0)
    x = x * (1 + x * np.float32(1 / 16)) / (1 + x)
    return np.asarray(np.clip(x, 0, 1) ** np.float32(1 / 2.2), np.float32)
