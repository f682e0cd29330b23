"""Unit solids as triangle meshes: box, ball, and tapered cylinders (cylinder, lamp shade, cone).

Every solid fits the cube [-0.5, 0.5]^3. The mesh only serves to find hits; for the curved sides the shading normal
comes from `smooth_gradient`, the gradient of the exact surface, so that labels do not show facets.
"""

from __future__ import annotations

import functools
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

RINGS, SEGMENTS = 20, 40  # of the ball; the cylinder uses SEGMENTS too


class Shape(IntEnum):
    """The kinds of solid. CYLINDER, SHADE and CONE are one family that differs in taper."""

    BOX = 0
    BALL = 1
    CYLINDER = 2
    SHADE = 3
    CONE = 4


# How much of the bottom radius is lost at the top: radius(z) = 0.5 * (1 - taper * (z + 0.5)).
TAPER = np.array([0.0, 0.0, 0.0, 0.4, 1.0], np.float32)


def _box() -> tuple[Floats, NDArray[np.bool_]]:
    faces = []
    for axis in range(3):
        u, v = (axis + 1) % 3, (axis + 2) % 3
        for side in (-0.5, 0.5):
            quad = np.zeros((4, 3))
            quad[:, axis] = side
            quad[:, u] = [-0.5, 0.5, 0.5, -0.5]
            quad[:, v] = [-0.5, -0.5, 0.5, 0.5]
            faces += [quad[[0, 1, 2]], quad[[0, 2, 3]]]
    triangles = np.array(faces, np.float32)
    return triangles, np.zeros(len(triangles), bool)


def _ball() -> tuple[Floats, NDArray[np.bool_]]:
    polar = np.linspace(0.0, np.pi, RINGS + 1)[:, None]
    around = np.linspace(0.0, 2 * np.pi, SEGMENTS + 1)[None, :]
    grid = 0.5 * np.stack(
        [np.sin(polar) * np.cos(around), np.sin(polar) * np.sin(around), np.cos(polar) + 0 * around], -1
    )
    a, b, c, d = grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]
    lower = np.stack([a, b, c], -2)[:-1].reshape(-1, 3, 3)  # the last ring closes in a point: one triangle per cell
    upper = np.stack([a, c, d], -2)[1:].reshape(-1, 3, 3)
    triangles = np.concatenate([lower, upper]).astype(np.float32)
    return triangles, np.ones(len(triangles), bool)


def _tapered(taper: float) -> tuple[Floats, NDArray[np.bool_]]:
    around = np.linspace(0.0, 2 * np.pi, SEGMENTS + 1)
    circle = 0.5 * np.stack([np.cos(around), np.sin(around), 0 * around], -1)
    low, high = circle + np.array([0, 0, -0.5]), circle * [1 - taper, 1 - taper, 0] + np.array([0, 0, 0.5])
    side = [np.stack([low[:-1], low[1:], high[1:]], 1)]
    caps = [np.stack([low[:-1], low[1:], np.broadcast_to([0, 0, -0.5], low[1:].shape)], 1)]
    if taper < 1:
        side.append(np.stack([low[:-1], high[1:], high[:-1]], 1))
        caps.append(np.stack([high[:-1], high[1:], np.broadcast_to([0, 0, 0.5], high[1:].shape)], 1))
    sides, ends = np.concatenate(side), np.concatenate(caps)
    smooth = np.concatenate([np.ones(len(sides), bool), np.zeros(len(ends), bool)])
    return np.concatenate([sides, ends]).astype(np.float32), smooth


@functools.cache
def unit_mesh(shape: Shape) -> tuple[Floats, NDArray[np.bool_]]:
    """Triangles of a unit solid, float32 [T, 3, 3], and for each whether it approximates a curved side, bool [T]."""
    if shape == Shape.BOX:
        return _box()
    if shape == Shape.BALL:
        return _ball()
    return _tapered(float(TAPER[shape]))


def smooth_gradient(local: Floats, shape: NDArray[np.integer]) -> Floats:
    """Gradient of the exact curved surface at points near it.

    local: float32 [N, 3] in the unit solid's frame; shape: [N], values of `Shape` other than BOX.
    Returns float32 [N, 3], outward, not normalised; a gradient is carried to the world by the transposed inverse.
    """
    out = local.copy()
    tapered = shape != Shape.BALL
    radius = np.sqrt(out[:, 0] ** 2 + out[:, 1] ** 2) + np.float32(1e-9)
    slope = np.float32(0.5) * TAPER[shape]
    out[:, 0] /= np.where(tapered, radius, 1)
    out[:, 1] /= np.where(tapered, radius, 1)
    out[:, 2] = np.where(tapered, slope, local[:, 2])
    return out
