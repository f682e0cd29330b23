"""One view of a home: the picture, and labels that are exact.

The ray through a pixel's centre gives class, instance, depth, normal and edge. Colour takes two more rays a pixel, for
textures and silhouettes; these borrow the light of the nearest pixel on their own surface.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgemtl.data.homes.develop import develop
from edgemtl.data.homes.light import Light, Lights, openness, spread
from edgemtl.data.homes.marks import boxes, edges
from edgemtl.data.homes.trace import FAR, Found, Surfels, World, dot
from edgemtl.data.homes.view import Eye
from edgemtl.data.rooms.labels import smooth_on_surface
from edgemtl.data.rooms.shade import pattern

Floats = NDArray[np.float32]
SHIFTS = ((0.25, -0.4), (-0.3, 0.3))  # of the two rays that smooth the picture, in pixels
CELL = 4  # side of the sampling pattern on the coarse grid
SHADOW_RAYS, OPEN_RAYS, OPEN_REACH = 2, 2, 1.3

NONE = 255  # class of a pixel without a label: becomes 0 in the file


@dataclass
class View:
    """A view of H x W pixels: rgb uint8 [H, W, 3]; semseg uint8 [H, W], index into CLASSES; instance int64 [H, W];
    depth float32 [H, W], metres along the axis; normals float32 [H, W, 3], camera axes (x right, y up, z towards the
    camera); edge uint8 [H, W], 0 or 1; boxes: one record per visible instance; models: ids of the models in sight.
    """

    rgb: NDArray[np.uint8]
    semseg: NDArray[np.uint8]
    instance: NDArray[np.int64]
    depth: Floats
    normals: Floats
    edge: NDArray[np.uint8]
    boxes: list[dict[str, object]]
    items: NDArray[np.int64]


def render(world: World, lights: list[Light], camera: Eye, size: tuple[int, int], rng: np.random.Generator) -> View:
    """Render `size` = (height, width) pixels."""
    height, width = size
    eye = np.array(camera.eye, np.float32)
    rays = camera.rays(height, width)
    pixel = 2 * float(np.tan(np.radians(camera.fov) / 2)) / max(size)
    found = world.cast(eye, rays)
    seen = world.look(found, rays, pixel)
    position = eye + rays * found.distance[:, None]
    # a ray can slip through a crack where walls meet: such a pixel has no labels
    missed = (found.distance >= FAR).reshape(size)
    instance = np.where(missed, -1, world.instance[found.item].reshape(size))
    depth = found.distance.reshape(size)
    axes = camera.axes()
    normals = np.stack([dot(seen.normal, axes[k]) for k in range(3)], 1).reshape(height, width, 3)

    lamps = Lights(_near(lights, camera))
    light, shine = _light(world, lamps, position, seen.normal, seen.gloss, rays, instance, depth, rng)
    level = light.mean(0, dtype=np.float64)
    linear = _colour(world, lamps, position, seen, rays, light, shine, pixel, level)
    at = _busy(linear, found.item, size)
    total = linear[at]
    for dx, dy in SHIFTS if len(at) else ():
        total += _borrowed(world, lamps, camera, size, (dx, dy), at, found, seen, light, shine, pixel, level)
    linear[at] = total / (1 + len(SHIFTS))
    rgb = develop(linear.reshape(height, width, 3), rng)
    semseg = world.cls[found.item].reshape(size).astype(np.uint8)
    edge = edges(semseg, instance, depth, normals, camera)
    semseg[missed], depth[missed], normals[missed] = NONE, 0, 0
    return View(rgb, semseg, instance, depth, normals, edge, boxes(world, camera, instance), np.unique(found.item))


def _near(lights: list[Light], camera: Eye) -> list[Light]:
    """The lights that matter: those of the camera's room first, then the strongest of the others; six at most."""

    def weight(light: Light) -> float:
        away = np.linalg.norm(np.subtract(light.centre, camera.eye))
        return sum(light.colour) / max(1.0, float(away) ** 2) * (3.0 if light.room == camera.room else 1.0)

    order = sorted(range(len(lights)), key=lambda k: -weight(lights[k]))
    return [lights[k] for k in sorted(order[:6])]


def _light(
    world: World,
    lamps: Lights,
    position: Floats,
    normal: Floats,
    gloss: Floats,
    rays: Floats,
    instance: NDArray[np.int64],
    depth: Floats,
    rng: np.random.Generator,
) -> tuple[Floats, Floats]:
    """Light that falls on the pixels' surfaces [N, 3], and its highlight per unit gloss [N, 3]."""
    size = instance.shape
    fill = float(rng.uniform(0.3, 0.75))  # of the direct light: stands for all that walls throw back
    n, p = normal.reshape(*size, 3), position.reshape(*size, 3)
    coarse = (instance[::2, ::2], n[::2, ::2], p[::2, ::2])
    rows, columns = coarse[0].shape
    at, up = (np.ascontiguousarray(a.reshape(-1, 3)) for a in (coarse[2], coarse[1]))
    draws = pattern(rows, columns, CELL, SHADOW_RAYS, 3, rng)
    arrives = lamps.reach(world, at, up, lamps.arriving(at, up), draws)
    free = openness(world, at, up, pattern(rows, columns, CELL, OPEN_RAYS, 2, rng), OPEN_REACH)
    shares: Floats = np.stack([arrives, free], 1).reshape(rows, columns, 2)
    shares = smooth_on_surface(shares, coarse[0], depth[::2, ::2], coarse[1], coarse[2], period=CELL)
    shares = spread(shares, coarse, (instance, n, p), size).reshape(-1, 2)
    arriving = lamps.arriving(position, normal)
    direct = lamps.tint(arriving) * shares[:, :1]
    level = direct.mean(0, dtype=np.float64).astype(np.float32)
    level = np.float32(0.5) * (level + level.mean())
    # the floor throws back less than the walls, and the ceiling more
    dome = np.float32(1) + np.float32(0.25) * normal[:, 2:]
    ambient = np.float32(fill) * level * (np.float32(0.15) + np.float32(0.85) * shares[:, 1:]) * dome
    # highlights are worked out only where a surface shows them
    view = -rays / np.sqrt(dot(rays, rays))[:, None]
    shine = np.zeros_like(direct)
    glossy = np.flatnonzero(gloss > 0)
    for k in range(len(lamps.centre)):
        to = lamps.centre[k] - position[glossy]
        middle = to / np.sqrt(dot(to, to) + np.float32(1e-9))[:, None] + view[glossy]
        spot = np.maximum(dot(middle, normal[glossy]), 0) ** 2 / (dot(middle, middle) + np.float32(1e-9))
        for _ in range(4):
            spot = spot * spot
        shine[glossy] += (spot * arriving[glossy, k])[:, None] * (lamps.colour[k] * np.float32(3.0))
    return direct + ambient, shine * shares[:, :1]


def _colour(
    world: World,
    lamps: Lights,
    position: Floats,
    seen: Surfels,
    rays: Floats,
    light: Floats,
    shine: Floats,
    pixel: float,
    level: NDArray[np.float64],
) -> Floats:
    """Light that leaves surfaces towards the eye, [N, 3]; mirrors show what is before them, in plain light."""
    out = seen.albedo * light + seen.gloss[:, None] * shine
    lit = np.flatnonzero(seen.glow > 0)
    if len(lit):
        out[lit] += seen.albedo[lit] * (seen.glow[lit, None] * np.float32(max(0.35, 1.2 * level.mean())))
    glass = np.flatnonzero(seen.mirror)
    if len(glass):
        d, n = rays[glass], seen.normal[glass]
        away = d - 2 * dot(d, n)[:, None] * n
        start = position[glass] + n * np.float32(4e-3)
        there = world.cast(start, away)
        look = world.look(there, away, pixel)
        where = start + away * there.distance[:, None]
        fall = lamps.tint(lamps.arriving(where, look.normal)) * np.float32(0.7) + level.astype(np.float32) * np.float32(
            0.3
        )
        glow = look.glow[:, None] * np.float32(max(0.35, 1.2 * level.mean()))
        out[glass] = seen.albedo[glass] * look.albedo * (fall + glow)
    return out


def _busy(linear: Floats, item: NDArray[np.int32], size: tuple[int, int]) -> NDArray[np.int64]:
    """Indices of the pixels whose neighbours differ, in item or by 5 % in brightness: only these need more rays."""
    bright = np.log(linear.sum(1) + np.float32(1e-3)).reshape(size)
    number = item.reshape(size)
    busy = np.zeros(size, bool)
    whole = slice(None)
    for a, b in (
        ((slice(None, -1), whole), (slice(1, None), whole)),
        ((whole, slice(None, -1)), (whole, slice(1, None))),
    ):
        differs = (number[a] != number[b]) | (np.abs(bright[a] - bright[b]) > 0.05)
        busy[a] |= differs
        busy[b] |= differs
    return np.flatnonzero(busy)


def _borrowed(
    world: World,
    lamps: Lights,
    camera: Eye,
    size: tuple[int, int],
    shift: tuple[float, float],
    at: NDArray[np.int64],
    centre: Found,
    seen: Surfels,
    light: Floats,
    shine: Floats,
    pixel: float,
    level: NDArray[np.float64],
) -> Floats:
    """Colour of pixels `at` along rays shifted by part of a pixel, with the light of the best matching pixel nearby."""
    height, width = size
    eye = np.array(camera.eye, np.float32)
    rays = camera.rays(height, width, *shift)[at]
    found = world.cast(eye, rays)
    look = world.look(found, rays, pixel)
    source = at.copy()
    stray = np.flatnonzero((found.item != centre.item[at]) | (dot(look.normal, seen.normal[at]) < 0.9))
    if len(stray):
        y, x = np.divmod(at[stray], width)
        best = np.full(len(stray), -9.0, np.float32)
        for dy, dx in ((0, 0), (0, -1), (0, 1), (-1, 0), (1, 0)):
            near = np.clip(y + dy, 0, height - 1) * width + np.clip(x + dx, 0, width - 1)
            fit = dot(look.normal[stray], seen.normal[near])
            fit += np.float32(4) * (found.item[stray] == centre.item[near])
            better = fit > best
            best = np.where(better, fit, best)
            source[stray] = np.where(better, near, source[stray])
    position = eye + rays * found.distance[:, None]
    return _colour(world, lamps, position, look, rays, light[source], shine[source], pixel, level)
