"""Where a person or a robot would take a picture: free of furniture, level, with much to see."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgemtl.data.homes.classes import CLASSES, INDEX
from edgemtl.data.homes.home import Home
from edgemtl.data.homes.trace import World
from edgemtl.data.rooms.camera import Camera

Floats = NDArray[np.float32]

COARSE = (15, 20)  # rays that judge a view
CANDIDATES = 5
TRIES = 24
CLEARANCE = 0.22  # metres between the eye and furniture


@dataclass(frozen=True)
class Eye(Camera):
    """A camera that is turned about its axis by `roll` radians; `room` is the number of the room it stands in."""

    roll: float = 0.0
    room: int = 0

    def axes(self) -> Floats:
        """Rows: right, up, towards the camera; float32 [3, 3]."""
        right, up, back = super().axes().astype(np.float64)
        c, s = np.cos(self.roll), np.sin(self.roll)
        return np.stack([c * right + s * up, c * up - s * right, back]).astype(np.float32)


def choose(home: Home, world: World, room: int, rng: np.random.Generator) -> Eye | None:
    """The best of some random views from a room; None where all are blocked."""
    best: tuple[float, Eye] | None = None
    place = home.rooms[room]
    found = 0
    for _ in range(CANDIDATES * 4):
        if found >= CANDIDATES:
            break
        eye = _position(home, room, rng)
        if eye is None:
            return None if best is None else best[1]
        x, y = eye
        inside = [a for a in home.anchors if place.x0 <= a[0] <= place.x1 and place.y0 <= a[1] <= place.y1]
        if inside and rng.random() < 0.8:
            aim = inside[int(rng.integers(len(inside)))]
        else:
            aim = (float(rng.uniform(place.x0, place.x1)), float(rng.uniform(place.y0, place.y1)), 1.0)
        far = np.hypot(aim[0] - x, aim[1] - y)
        if far < 0.8:
            continue
        way = np.arctan2(aim[1] - y, aim[0] - x) + rng.uniform(-0.35, 0.35)
        z = float(np.clip(rng.normal(1.35, 0.22), 0.75, 1.8)) if rng.random() < 0.85 else float(rng.uniform(0.35, 0.8))
        z = min(z, place.height - 0.3)
        towards = (aim[2] - z) / far
        pitch = float(np.clip(0.5 * towards + rng.normal(-0.12, 0.14), -0.75, 0.3))
        fov = float(np.clip(rng.normal(57.5, 4.0), 45, 80)) if rng.random() < 0.7 else float(rng.uniform(45, 80))
        camera = Eye((x, y, z), (x + float(np.cos(way)), y + float(np.sin(way)), z + pitch), fov,
                     float(np.clip(rng.normal(0, 0.025), -0.09, 0.09)), room)  # fmt: skip
        score = judge(world, camera)
        if score is None:
            continue
        found += 1
        if best is None or score > best[0]:
            best = (score, camera)
    return None if best is None else best[1]


def _position(home: Home, room: int, rng: np.random.Generator) -> tuple[float, float] | None:
    place = home.rooms[room]
    for _ in range(TRIES):
        x = float(rng.uniform(place.x0 + 0.2, place.x1 - 0.2))
        y = float(rng.uniform(place.y0 + 0.2, place.y1 - 0.2))
        if all(f.distance(x, y) > CLEARANCE for f in home.footprints if f.solid):
            return x, y
    return None


def judge(world: World, camera: Eye) -> float | None:
    """Worth of a view: many classes, a middling distance, nothing large before the lens. None for a blocked one."""
    height, width = COARSE
    found = world.cast(np.array(camera.eye, np.float32), camera.rays(height, width))
    distance = found.distance
    near = float(np.quantile(distance, 0.05))
    middle = float(np.median(distance))
    if near < 0.45 or middle < 0.9 or distance.min() < 0.2:
        return None
    cls = world.cls[found.item]
    share = np.bincount(cls, minlength=len(CLASSES)) / cls.size
    if share[INDEX["wall"]] + share[INDEX["ceiling"]] > 0.72:
        return None
    weight = np.ones(len(CLASSES))
    weight[[INDEX["wall"], INDEX["ceiling"], INDEX["floor"]]] = 0.4
    score = float((weight * np.minimum(np.sqrt(share), 0.3)).sum())
    score -= 0.5 * abs(np.log(middle / 2.3))
    score -= 2.0 * max(0.0, share[INDEX["ceiling"]] - 0.05)
    score -= 1.2 * max(0.0, 0.9 - float(np.quantile(distance, 0.15)))
    biggest = np.bincount(world.instance[found.item]).max() / cls.size
    return score - 1.0 * max(0.0, float(biggest) - 0.5)


def fallback(home: Home, world: World) -> Eye:
    """A view for a home with no free floor to speak of: from the point of a grid that is farthest from all else."""
    best: tuple[float, Eye] | None = None
    for room, place in enumerate(home.rooms):
        for u in (0.15, 0.35, 0.5, 0.65, 0.85):
            for v in (0.15, 0.35, 0.5, 0.65, 0.85):
                x, y = place.x0 + u * (place.x1 - place.x0), place.y0 + v * (place.y1 - place.y0)
                way = np.arctan2((place.y0 + place.y1) / 2 - y + 0.01, (place.x0 + place.x1) / 2 - x)
                camera = Eye((x, y, 1.6), (x + float(np.cos(way)), y + float(np.sin(way)), 1.35), 60.0, 0.0, room)
                found = world.cast(np.array(camera.eye, np.float32), camera.rays(*COARSE))
                score = float(np.quantile(found.distance, 0.1))
                if best is None or score > best[0]:
                    best = (score, camera)
    assert best is not None  # a home has at least one room
    return best[1]
