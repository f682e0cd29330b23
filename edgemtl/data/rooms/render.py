"""One view of a room: colour picture and exact labels.

The centre ray of each pixel gives class, depth, normal and edge. Light is computed once per pixel at that point; colour
takes four more rays per pixel (a rotated grid) for the texture and the silhouettes, each of which borrows the light of
the nearest pixel on its own surface. So pictures are antialiased while labels stay exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgemtl.data.rooms.camera import Camera
from edgemtl.data.rooms.labels import edges, smooth_on_surface
from edgemtl.data.rooms.raycast import Caster, Hits
from edgemtl.data.rooms.scene import Light
from edgemtl.data.rooms.shade import AMBIENT, OFFSET, Lamps, hemisphere, pattern, tone

Floats = NDArray[np.float32]

ROTATED_GRID = ((-0.375, -0.125), (0.125, -0.375), (0.375, 0.125), (-0.125, 0.375))
SHADOW_CELL, SHADOW_RAYS = 4, 2
BOUNCE_CELL = 8


@dataclass
class View:
    """A rendered view of H x W pixels.

    rgb: uint8 [H, W, 3]; semseg: uint8 [H, W], index into CLASSES; instance: int64 [H, W]; depth: float32 [H, W],
    metres along the optical axis; normals: float32 [H, W, 3], unit, camera axes (x right, y up, z towards the camera);
    edge: uint8 [H, W], 0 or 1.
    """

    rgb: NDArray[np.uint8]
    semseg: NDArray[np.uint8]
    instance: NDArray[np.int64]
    depth: Floats
    normals: Floats
    edge: NDArray[np.uint8]


def render(
    caster: Caster,
    lights: list[Light],
    camera: Camera,
    size: tuple[int, int],
    rng: np.random.Generator,
) -> View:
    """Render `size` = (height, width) pixels."""
    height, width = size
    eye = np.array(camera.eye, np.float32)
    rays = camera.rays(height, width)
    hits = caster.cast(eye, rays)
    position = eye + rays * hits.distance[:, None]
    normal, reflectance = caster.surface(hits, position, rays)

    axes = camera.axes()
    seen = np.stack([(normal * axes[k]).sum(1) for k in range(3)], 1).reshape(height, width, 3)
    depth = hits.distance.reshape(height, width)
    instance = caster.instance[hits.solid].reshape(height, width)
    place = np.stack([((position - eye) * axes[k]).sum(1) for k in range(3)], 1).reshape(height, width, 3)

    lamps = Lamps.of(lights)
    surface = (instance, depth, seen, place)
    view = -rays / np.sqrt((rays * rays).sum(1, keepdims=True))
    light, shine = _light(caster, lamps, position, normal, view, surface, rng)

    linear = _colour(caster, hits, normal, reflectance, view, light, shine)
    for dx, dy in ROTATED_GRID:
        linear += _borrowed(caster, camera, size, (dx, dy), hits, normal, light, shine)
    linear /= 1 + len(ROTATED_GRID)

    key = float(rng.uniform(0.7, 1.35))
    brightness = np.log(linear.mean(1) + np.float32(1e-4)).mean(dtype=np.float64)
    shown = tone(linear, 0.42 * key / float(np.exp(brightness)))
    shown = shown + rng.standard_normal(shown.shape, np.float32) * np.float32(rng.uniform(0.0, 0.012))
    rgb = (np.clip(shown, 0, 1) * 255 + 0.5).astype(np.uint8).reshape(height, width, 3)
    semseg = caster.cls[hits.solid].astype(np.uint8).reshape(height, width)
    return View(rgb, semseg, instance, depth, seen, edges(*surface))


def _light(
    caster: Caster,
    lamps: Lamps,
    position: Floats,
    normal: Floats,
    view: Floats,
    surface: tuple[NDArray[np.int64], Floats, Floats, Floats],
    rng: np.random.Generator,
) -> tuple[Floats, Floats]:
    """Diffuse light and highlight per unit gloss at the pixels' centres, float32 [N, 3] each."""
    height, width = surface[1].shape
    arriving = lamps.unshadowed(position, normal)
    draws = pattern(height, width, SHADOW_CELL, SHADOW_RAYS, 3, rng)
    reach: Floats = lamps.reach(caster, position, normal, arriving, draws).reshape(height, width, 1)
    reach = smooth_on_surface(reach, *surface, period=SHADOW_CELL).reshape(-1, 1)
    direct = _tint(arriving, lamps) * reach
    shine = lamps.highlight(position, normal, view, arriving) * reach

    draws = pattern(height, width, BOUNCE_CELL, 1, 5, rng)[:, 0]
    start = position + normal * OFFSET
    away = hemisphere(normal, draws[:, :2])
    second = caster.cast(start, away)
    there = start + away * second.distance[:, None]
    facing, reflectance = caster.surface(second, there, away)
    incoming = lamps.unshadowed(there, facing)
    lit = lamps.reach(caster, there, facing, incoming, draws[:, None, 2:])[:, None]
    ambient = AMBIENT * direct.mean(0, dtype=np.float64).astype(np.float32)
    bounced = reflectance * (_tint(incoming, lamps) * lit + ambient)
    # a hit right beside a lamp would be a bright speckle: bound it
    bounced = np.minimum(bounced, 4 * direct.mean(dtype=np.float64).astype(np.float32))
    bounced = smooth_on_surface(bounced.reshape(height, width, 3), *surface, period=BOUNCE_CELL).reshape(-1, 3)
    return direct + bounced, shine


def _tint(arriving: Floats, lamps: Lamps) -> Floats:
    """Sum of the lights' colours weighted by what arrives of each, float32 [N, 3]."""
    out = np.zeros((len(arriving), 3), np.float32)
    for k, colour in enumerate(lamps.colour):
        out += arriving[:, k, None] * colour
    return out


def _colour(
    caster: Caster,
    hits: Hits,
    normal: Floats,
    reflectance: Floats,
    view: Floats,
    light: Floats,
    shine: Floats,
) -> Floats:
    """Light leaving the surface towards the eye, float32 [N, 3]."""
    gloss, glow = caster.materials["gloss"][hits.solid], caster.materials["glow"][hits.solid]
    out = reflectance * light + gloss[:, None] * shine
    lit = np.flatnonzero(glow > 0)
    if len(lit):
        rim = np.float32(0.55) + np.float32(0.45) * np.abs((normal[lit] * view[lit]).sum(1))
        out[lit] += (glow[lit] * rim)[:, None] * reflectance[lit]
    return out


def _borrowed(
    caster: Caster,
    camera: Camera,
    size: tuple[int, int],
    shift: tuple[float, float],
    centre: Hits,
    centre_normal: Floats,
    light: Floats,
    shine: Floats,
) -> Floats:
    """Colour along rays shifted by part of a pixel, with the light of the best matching pixel nearby."""
    height, width = size
    eye = np.array(camera.eye, np.float32)
    rays = camera.rays(height, width, *shift)
    hits = caster.cast(eye, rays)
    normal, reflectance = caster.surface(hits, eye + rays * hits.distance[:, None], rays)
    source = np.arange(height * width)
    stray = np.flatnonzero((hits.solid != centre.solid) | ((normal * centre_normal).sum(1) < 0.8))
    if len(stray):
        y, x = np.divmod(stray, width)
        best = np.full(len(stray), -9.0, np.float32)
        for dy in (0, -1, 1):
            for dx in (0, -1, 1):
                near = np.clip(y + dy, 0, height - 1) * width + np.clip(x + dx, 0, width - 1)
                fit = (normal[stray] * centre_normal[near]).sum(1)
                fit += np.float32(4) * (hits.solid[stray] == centre.solid[near])
                better = fit > best
                best = np.where(better, fit, best)
                source[stray] = np.where(better, near, source[stray])
    view = -rays / np.sqrt((rays * rays).sum(1, keepdims=True))
    return _colour(caster, hits, normal, reflectance, view, light[source], shine[source])
