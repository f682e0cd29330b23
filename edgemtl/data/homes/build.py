"""What recipes furnish a home with: free floor, places against walls, things on top of things.

World frame: metres, z up, floors at z = 0. A home is one or two rooms side by side along x.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edgemtl.data.homes.catalogue import Catalogue, Entry
from edgemtl.data.homes.classes import INDEX
from edgemtl.data.homes.light import Light
from edgemtl.data.homes.mesh import Mesh
from edgemtl.data.homes.model import Models
from edgemtl.data.homes.place import Placed, Room, Spot, Wall, touch
from edgemtl.data.homes.trace import Item
from edgemtl.data.rooms.scene import Footprint, move, turn

HOME_TRIANGLES = 330_000


class Builder:
    """Collects items; hands out instances, models, free floor."""

    def __init__(self, rng: np.random.Generator, catalogue: Catalogue, models: Models) -> None:
        self.rng, self.models = rng, models
        self.roles = catalogue.roles
        self.rooms: list[Room] = []
        self.items: list[Item] = []
        self.lights: list[Light] = []
        self.footprints: list[Footprint] = []
        self.anchors: list[tuple[float, float, float]] = []
        self.triangles = 0
        self.instances = 0

    # chance
    def uniform(self, low: float, high: float) -> float:
        """A number from low to high; low where there is no room between, as rounding may have it."""
        return float(self.rng.uniform(low, max(low, high)))

    def chance(self, probability: float) -> bool:
        """True with a probability."""
        return bool(self.rng.random() < probability)

    def integer(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return int(self.rng.integers(low, high + 1))

    def tint(self, strength: float = 0.08) -> tuple[float, float, float]:
        """A colour cast for an item, so that one model has many looks."""
        if self.chance(0.35):
            strength *= 2.5
        level = self.uniform(1 - 1.6 * strength, 1 + 0.6 * strength)
        r, g, b = np.clip(level * (1 + self.rng.uniform(-strength, strength, 3)), 0.25, 1.15)
        return float(r), float(g), float(b)

    # models
    def model(self, role: str, fits: tuple[float, float] | None = None, tries: int = 6) -> tuple[Entry, Mesh] | None:
        """A model of a role that is not wider and deeper than `fits`; None where there is none."""
        entries = self.roles.get(role, [])
        for _ in range(tries if entries else 0):
            entry = entries[int(self.rng.integers(len(entries)))]
            if fits and (entry.size[0] > fits[0] or entry.size[1] > fits[1]):
                continue
            if self.triangles > HOME_TRIANGLES and entry.size[0] < 0.5:
                return None
            mesh = self.models.get(entry)
            if mesh is not None:
                return entry, mesh
        return None

    def same(self, role: str) -> tuple[Entry, Mesh] | None:
        """The home's own model of a role: chairs around a table are alike."""
        return self.model(role)

    # items
    def add(
        self,
        name: str | int,
        mesh: Mesh,
        at: NDArray[np.float64],
        tint: tuple[float, float, float] = (1, 1, 1),
        model: str = "",
        instance: int | None = None,
    ) -> int:
        """Put a mesh somewhere; returns its instance number."""
        if instance is None:
            self.instances += 1
            instance = self.instances
        cls = INDEX[name] if isinstance(name, str) else name
        self.items.append(Item(mesh, at, cls, instance, tint, model))
        self.triangles += len(mesh.corners)
        return instance

    def stand(
        self,
        found: tuple[Entry, Mesh],
        x: float,
        y: float,
        angle: float,
        z: float = 0.0,
        tint: tuple[float, float, float] | None = None,
        scale: float = 1.0,
        solid: bool = True,
    ) -> Placed:
        """Put a model at a place, unconditionally."""
        entry, mesh = found
        at = move(x, y, z) @ turn(angle) @ np.diag([scale, scale, scale, 1.0])
        self.add(entry.cls, mesh, at, self.tint() if tint is None else tint, entry.id)
        half = entry.size[0] / 2 * scale, entry.size[1] / 2 * scale
        footprint = Footprint(x, y, half[0], half[1], angle, solid)
        if z < 0.05:
            self.footprints.append(footprint)
            self.anchors.append((x, y, min(1.2, entry.size[2] * 0.7)))
        return Placed(mesh, x, y, z, angle, footprint, entry.top)

    def free(self, room: Room, footprint: Footprint) -> bool:
        """Whether a footprint lies in a room and touches no other."""
        return room.holds(footprint) and not any(touch(footprint, f) for f in self.footprints)

    def reserve(self, x: float, y: float, half_x: float, half_y: float, angle: float, solid: bool = False) -> Footprint:
        """Take floor without putting anything there."""
        footprint = Footprint(x, y, half_x, half_y, angle, solid)
        self.footprints.append(footprint)
        return footprint

    def wall_spot(
        self,
        room: Room,
        width: float,
        depth: float,
        height: float,
        front: float = 0.0,
        gap: float = 0.02,
        low: float = 0.0,
        corner: bool = False,
        walls: list[int] | None = None,
        tries: int = 30,
    ) -> Spot | None:
        """A free place for a box with its back on a wall: (wall, along, x, y, angle); `front`: free floor before it."""
        order = walls if walls is not None else [0, 1, 2, 3]
        for _ in range(tries):
            wall = room.walls[order[int(self.rng.integers(len(order)))]]
            if wall.length < width + 0.05:
                continue
            span = wall.length - width
            at = width / 2 + (0.02 + (span - 0.04) * self.integer(0, 1) if corner else self.uniform(0.01, span - 0.01))
            a, b = at - width / 2, at + width / 2
            if not wall.free(a, b, low, low + height):
                continue
            if low > 0.5:  # hangs: only other things on the wall count
                if self.hang_free(room, wall, a, b, low, low + height):
                    x, y = wall.point(at, depth / 2 + gap)
                    return wall, at, float(x), float(y), wall.angle
                continue
            x, y = wall.point(at, (depth + front) / 2 + gap)
            if not self.free(room, Footprint(float(x), float(y), width / 2, (depth + front) / 2, wall.angle)):
                continue
            if not self.hang_free(room, wall, a, b, low, low + height):
                continue
            x, y = wall.point(at, depth / 2 + gap)
            return wall, at, float(x), float(y), wall.angle
        return None

    def hang_free(self, room: Room, wall: Wall, a: float, b: float, low: float, high: float) -> bool:
        """Whether a piece of a wall has nothing on it: from `a` to `b` along it, `low` to `high` above the floor."""
        number = room.walls.index(wall)
        return not any(
            n == number and a < right and b > left and low < t and high > u for n, left, right, u, t in room.hung
        )

    def hang(self, room: Room, wall: Wall, a: float, b: float, low: float, high: float) -> None:
        """Take a piece of a wall, with a margin of 3 cm."""
        room.hung.append((room.walls.index(wall), a - 0.03, b + 0.03, low - 0.03, high + 0.03))

    def against(
        self,
        room: Room,
        role: str,
        front: float = 0.0,
        corner: bool = False,
        fits: tuple[float, float] = (9, 9),
        walls: list[int] | None = None,
    ) -> Placed | None:
        """A model of a role with its back on a wall."""
        for _ in range(3):
            found = self.model(role, fits)
            if found is None:
                return None
            entry, _ = found
            spot = self.wall_spot(room, entry.size[0], entry.size[1], entry.size[2], front, corner=corner, walls=walls)
            if spot is None:
                continue
            wall, at, x, y, angle = spot
            self.hang(room, wall, at - entry.size[0] / 2, at + entry.size[0] / 2, 0, entry.size[2])
            return self.stand(found, x, y, angle)
        return None

    def somewhere(
        self,
        room: Room,
        role: str,
        gap: float = 0.02,
        tries: int = 25,
        turned: bool = True,
        fits: tuple[float, float] = (9, 9),
    ) -> Placed | None:
        """A model of a role anywhere on free floor."""
        found = self.model(role, fits)
        if found is None:
            return None
        entry, _ = found
        half_x, half_y = entry.size[0] / 2, entry.size[1] / 2
        for _ in range(tries):
            x, y = self.uniform(room.x0, room.x1), self.uniform(room.y0, room.y1)
            angle = self.uniform(-np.pi, np.pi) if turned else self.integer(0, 3) * np.pi / 2 + self.uniform(-0.1, 0.1)
            if self.free(room, Footprint(x, y, half_x + gap, half_y + gap, angle)):
                return self.stand(found, x, y, angle)
        return None

    # things on things
    def surface_at(self, under: Placed, x: float, y: float, radius: float, angle: float = 0.0) -> float | None:
        """Height of level ground on top of an item at a point of its frame, None where a thing would not stand."""
        limit = np.inf if under.top is None or under.top < 0 else under.top + 0.06
        r = radius * 0.8
        spots = np.array([[x, y], [x + r, y], [x - r, y], [x, y + r], [x, y - r]])
        z = under.mesh.height_at(spots, limit)
        if not np.isfinite(z).all() or z.max() - z.min() > 0.02 + 0.1 * radius or z[0] < 0.1:
            return None
        return float(z.max())

    def put(
        self,
        under: Placed,
        found: tuple[Entry, Mesh],
        tries: int = 8,
        zone: tuple[float, float, float, float] = (-1, 1, -1, 1),
        angle: float | None = None,
        tint: tuple[float, float, float] | None = None,
    ) -> Placed | None:
        """A model on top of an item; `zone` limits the place, in halves of the item: x from, to, y from, to."""
        entry, mesh = found
        radius = max(entry.size[0], entry.size[1]) / 2
        half = under.size[:2] / 2
        for _ in range(tries):
            x, y = (
                self.uniform(zone[0], zone[1]) * (half[0] - radius),
                self.uniform(zone[2], zone[3]) * (half[1] - radius),
            )
            if radius > half.max() or any(np.hypot(x - u, y - v) < radius + r for u, v, r in under.used):
                continue
            z = self.surface_at(under, x, y, radius)
            if z is None:
                continue
            under.used.append((x, y, radius))
            at = under.world(x, y)
            facing = under.angle + (self.uniform(-0.5, 0.5) if angle is None else angle)
            return self.stand(
                (replace(entry, top=None), mesh), float(at[0]), float(at[1]), facing, under.z + z + 0.001, tint
            )
        return None

    def scatter(
        self,
        under: Placed | None,
        role: str,
        low: int,
        high: int,
        zone: tuple[float, float, float, float] = (-1, 1, -1, 1),
    ) -> None:
        """Several small models on top of an item."""
        if under is None:
            return
        for _ in range(self.integer(low, high)):
            found = self.model(role, (0.6, 0.6))
            if found is not None:
                self.put(under, found, zone=zone, angle=self.uniform(-3, 3) if self.chance(0.4) else None)
