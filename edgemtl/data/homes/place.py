"""Where things are in a home: rooms, walls with their gaps, what stands where."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgemtl.data.homes.mesh import Mesh
from edgemtl.data.rooms.scene import Footprint

Vector = NDArray[np.float64]


@dataclass
class Gap:
    """A door, doorway or window in a wall: from `a` to `b` along it, `low` to `high` above the floor."""

    kind: str
    a: float
    b: float
    low: float
    high: float


@dataclass(eq=False)
class Wall:
    """A wall seen from inside: from `start` [2] along `along` [2] for `length` metres; `inward` [2] looks inside."""

    start: Vector
    along: Vector
    inward: Vector
    length: float
    gaps: list[Gap] = field(default_factory=list)

    @property
    def angle(self) -> float:
        """The turn that makes an item's back lie on the wall and its front look into the room."""
        return float(np.arctan2(self.inward[0], -self.inward[1]))

    def point(self, at: float, off: float = 0.0) -> Vector:
        """The point of the floor `at` metres along the wall and `off` metres before it; float64 [2]."""
        return np.asarray(self.start + self.along * at + self.inward * off)

    def free(self, a: float, b: float, low: float, high: float, margin: float = 0.03) -> bool:
        """Whether no gap lies behind a piece of the wall."""
        return not any(g.a < b + margin and g.b > a - margin and g.low < high and g.high > low for g in self.gaps)


@dataclass
class Room:
    """A rectangle of floor with a kind, its walls (south, east, north, west) and what hangs on them."""

    kind: str
    x0: float
    y0: float
    x1: float
    y1: float
    height: float
    walls: list[Wall] = field(default_factory=list)
    hung: list[tuple[int, float, float, float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        x0, y0, x1, y1 = self.x0, self.y0, self.x1, self.y1
        for start, along, inward in (
            ((x0, y0), (1, 0), (0, 1)),
            ((x1, y0), (0, 1), (-1, 0)),
            ((x1, y1), (-1, 0), (0, -1)),
            ((x0, y1), (0, -1), (1, 0)),
        ):
            length = x1 - x0 if along[0] else y1 - y0
            self.walls.append(Wall(np.array(start, float), np.array(along, float), np.array(inward, float), length))

    def holds(self, footprint: Footprint, margin: float = 0.01) -> bool:
        """Whether a footprint lies inside, give or take `margin` metres."""
        c = footprint.corners()
        low, high = c.min(0), c.max(0)
        return bool(
            low[0] > self.x0 - margin and low[1] > self.y0 - margin
            and high[0] < self.x1 + margin and high[1] < self.y1 + margin
        )  # fmt: skip


Spot = tuple[Wall, float, float, float, float]  # a place at a wall: wall, metres along it, x, y, angle


@dataclass(eq=False)
class Placed:
    """An item that stands somewhere: its mesh, where, and its footprint."""

    mesh: Mesh
    x: float
    y: float
    z: float
    angle: float
    footprint: Footprint
    top: float | None = None
    used: list[tuple[float, float, float]] = field(default_factory=list)

    @property
    def size(self) -> Vector:
        return self.mesh.size

    def world(self, x: float, y: float) -> Vector:
        """A point of the item's frame on the floor plan."""
        c, s = np.cos(self.angle), np.sin(self.angle)
        return np.array([self.x + c * x - s * y, self.y + s * x + c * y])


def touch(a: Footprint, b: Footprint) -> bool:
    """Whether two footprints overlap; circles around them are compared first, as most are far apart."""
    reach = abs(a.half_x) + abs(a.half_y) + abs(b.half_x) + abs(b.half_y)
    return abs(a.x - b.x) < reach and abs(a.y - b.y) < reach and a.overlaps(b)
