"""Pinhole camera, ray directions, and the choice of viewpoints that show much and touch nothing.

Camera axes: x right, y up, z towards the camera (so a wall seen head-on has the normal (0, 0, 1)).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgemtl.data.rooms.classes import CLASSES
from edgemtl.data.rooms.raycast import Caster
from edgemtl.data.rooms.scene import Scene

Floats = NDArray[np.float32]

CLEARANCE = 0.3  # metres between the eye and any furniture or wall
COARSE = (16, 32)  # rays used to judge a candidate view
CANDIDATES = 14


@dataclass(frozen=True)
class Camera:
    """Eye and target in metres; `fov` is the angle across the longer image side, in degrees."""

    eye: tuple[float, float, float]
    target: tuple[float, float, float]
    fov: float

    def axes(self) -> Floats:
        """Rows: right, up, towards the camera; float32 [3, 3]."""
        back = np.subtract(self.eye, self.target)
        back = back / np.linalg.norm(back)
        right = np.cross([0.0, 0.0, 1.0], back)
        right /= np.linalg.norm(right)
        return np.stack([right, np.cross(back, right), back]).astype(np.float32)

    def rays(self, height: int, width: int, dx: float = 0.0, dy: float = 0.0) -> Floats:
        """Directions through the pixel centres shifted by (dx, dy) pixels, float32 [height * width, 3].

        They are scaled so that a hit at ray length t lies at planar depth t.
        """
        step = 2 * np.tan(np.radians(self.fov) / 2) / max(height, width)
        x = ((np.arange(width) + 0.5 + dx - width / 2) * step).astype(np.float32)
        y = ((height / 2 - np.arange(height) - 0.5 - dy) * step).astype(np.float32)
        right, up, back = self.axes()
        return (x[None, :, None] * right + y[:, None, None] * up - back).reshape(-1, 3)


# What a view gains per pixel share of a class, up to a cap: rare things count, and no single one dominates.
_WORTH = np.array(
    [
        {
            "wall": 0.2,
            "floor": 1.0,
            "ceiling": 0.9,
            "door": 0.6,
            "table": 0.8,
            "shelf": 0.8,
            "chair": 1.0,
            "cone": 2.6,
            "ball": 2.2,
        }.get(name, 1.7)
        for name in CLASSES
    ]
)
_CAP = 0.07


def clear(scene: Scene, x: float, y: float, margin: float = CLEARANCE) -> bool:
    """Whether a point of the floor keeps `margin` metres from walls and furniture."""
    if abs(x) > scene.width / 2 - margin or abs(y) > scene.depth / 2 - margin:
        return False
    return all(f.distance(x, y) > margin for f in scene.footprints if f.solid)


def choose_view(scene: Scene, caster: Caster, rng: np.random.Generator) -> Camera:
    """Draw candidate views, judge each by a coarse cast, keep the best."""
    best: tuple[float, Camera] | None = None
    for _ in range(CANDIDATES):
        x = y = 0.0
        for _ in range(30):
            x = float(rng.uniform(-0.5, 0.5)) * (scene.width - 2 * CLEARANCE)
            y = float(rng.uniform(-0.5, 0.5)) * (scene.depth - 2 * CLEARANCE)
            if clear(scene, x, y):
                break
        else:
            continue
        _, aim = scene.anchors[int(rng.integers(len(scene.anchors)))]
        eye = (x, y, float(rng.uniform(0.95, 1.75)))
        flat = np.hypot(aim[0] - x, aim[1] - y) + 1e-6
        if flat < 0.5:
            continue
        # a level gaze with some freedom: people hold cameras that way, and pitch stays within about 25 degrees
        drop = float(np.clip((aim[2] - eye[2]) / flat * 0.65 + rng.uniform(-0.22, 0.18), -0.5, 0.45))
        towards = np.array([aim[0] - x, aim[1] - y]) / flat
        camera = Camera(eye, (x + float(towards[0]), y + float(towards[1]), eye[2] + drop), float(rng.uniform(75, 100)))
        score = judge(caster, camera)
        if best is None or score > best[0]:
            best = (score, camera)
    return roomiest_view(scene) if best is None else best[1]


def roomiest_view(scene: Scene) -> Camera:
    """The view across the room from the floor point farthest from all else: for a room too full to choose."""
    grid = np.linspace(-0.45, 0.45, 25)
    solid = [f for f in scene.footprints if f.solid]

    def spare(x: float, y: float) -> float:
        wall = min(scene.width / 2 - abs(x), scene.depth / 2 - abs(y))
        return min([wall, *(f.distance(x, y) for f in solid)])

    points = [(float(u) * scene.width, float(v) * scene.depth) for u in grid for v in grid]
    x, y = max(points, key=lambda p: spare(*p))
    length = float(np.hypot(x, y))
    ahead = (-x / length, -y / length) if length > 0.1 else (0.0, 1.0)
    return Camera((x, y, 1.5), (x + ahead[0], y + ahead[1], 1.3), 85.0)


def judge(caster: Caster, camera: Camera) -> float:
    """Worth of a view from a coarse cast: more classes with more pixels, nothing large in front."""
    height, width = COARSE
    hits = caster.cast(np.array(camera.eye, np.float32), camera.rays(height, width))
    share = np.bincount(caster.cls[hits.solid], minlength=len(CLASSES)) / (height * width)
    near = float(np.quantile(hits.distance, 0.1))
    score = float((_WORTH * np.minimum(share, _CAP)).sum())
    score -= 2.0 * max(0.0, 0.9 - near)  # something fills the foreground
    score -= 1.0 * max(0.0, float(share[3:].max()) - 0.3)  # one object fills the picture
    return score
