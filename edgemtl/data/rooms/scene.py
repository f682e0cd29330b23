"""A room as data: solids with class, instance and material, footprints for collision, and lights.

`SceneBuilder` is what the furniture recipes write to; `Scene` is the packed result that rays are cast against.
World frame: metres, z up, the floor is z = 0 and the room is centred on x = y = 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgemtl.data.rooms.classes import INDEX
from edgemtl.data.rooms.materials import Material
from edgemtl.data.rooms.shapes import Shape

Matrix = NDArray[np.float64]
Size = tuple[float, float, float]


def move(x: float, y: float, z: float) -> Matrix:
    """Translation as a 4x4 matrix."""
    m = np.eye(4)
    m[:3, 3] = x, y, z
    return m


def turn(angle: float) -> Matrix:
    """Rotation about z by `angle` radians."""
    m = np.eye(4)
    c, s = np.cos(angle), np.sin(angle)
    m[:2, :2] = [[c, -s], [s, c]]
    return m


@dataclass(frozen=True)
class Footprint:
    """An oriented rectangle on the floor: centre, half sizes, angle. `solid` ones also keep the camera out."""

    x: float
    y: float
    half_x: float
    half_y: float
    angle: float
    solid: bool = True

    def axes(self) -> NDArray[np.float64]:
        c, s = np.cos(self.angle), np.sin(self.angle)
        return np.array([[c, s], [-s, c]])

    def overlaps(self, other: Footprint) -> bool:
        """Separating-axis test of two oriented rectangles."""
        gap = np.array([other.x - self.x, other.y - self.y])
        mine, theirs = self.axes(), other.axes()
        for axis in (*mine, *theirs):
            reach = (
                self.half_x * abs(mine[0] @ axis)
                + self.half_y * abs(mine[1] @ axis)
                + other.half_x * abs(theirs[0] @ axis)
                + other.half_y * abs(theirs[1] @ axis)
            )
            if abs(gap @ axis) >= reach:
                return False
        return True

    def distance(self, x: float, y: float) -> float:
        """Metres from a point to the rectangle, 0 inside."""
        u, v = self.axes() @ np.array([x - self.x, y - self.y])
        return float(np.hypot(max(0.0, abs(u) - self.half_x), max(0.0, abs(v) - self.half_y)))

    def corners(self) -> NDArray[np.float64]:
        signs = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]]) * [self.half_x, self.half_y]
        return np.asarray(signs @ self.axes() + [self.x, self.y])


@dataclass(frozen=True)
class Light:
    """A panel that shines down (`half_x`, `half_y` > 0) or a glowing ball (`radius`, shade reaching `shell`)."""

    centre: Size
    colour: Size
    power: float
    half_x: float = 0.0
    half_y: float = 0.0
    radius: float = 0.0
    shell: float = 0.0


@dataclass
class Solid:
    """One unit shape under an affine map."""

    shape: Shape
    matrix: Matrix
    cls: int
    instance: int
    material: Material


@dataclass
class Scene:
    """Everything a renderer needs. `anchors` are points worth looking at, per class index."""

    width: float
    depth: float
    height: float
    solids: list[Solid]
    lights: list[Light]
    footprints: list[Footprint]
    anchors: list[tuple[int, Size]]


@dataclass
class SceneBuilder:
    """Collects solids; hands out instance numbers and free floor."""

    rng: np.random.Generator
    width: float
    depth: float
    height: float
    solids: list[Solid] = field(default_factory=list)
    lights: list[Light] = field(default_factory=list)
    footprints: list[Footprint] = field(default_factory=list)
    anchors: list[tuple[int, Size]] = field(default_factory=list)
    instances: int = 0

    def uniform(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def integer(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return int(self.rng.integers(low, high + 1))

    def new(self, name: str, at: Matrix, height: float) -> Piece:
        """Start an object of class `name` whose frame is `at`; `height` is where to look at it."""
        self.instances += 1
        spot = (at @ [0.0, 0.0, height, 1.0])[:3]
        self.anchors.append((INDEX[name], (float(spot[0]), float(spot[1]), float(spot[2]))))
        return Piece(self, INDEX[name], self.instances, at)

    def free(self, footprint: Footprint, margin: float = 0.03, ignore: int | None = None) -> bool:
        """Whether a footprint lies in the room and touches no other (but number `ignore`)."""
        corners = np.abs(footprint.corners())
        if corners[:, 0].max() > self.width / 2 - margin or corners[:, 1].max() > self.depth / 2 - margin:
            return False
        return not any(footprint.overlaps(f) for i, f in enumerate(self.footprints) if i != ignore)

    def place(
        self, half_x: float, half_y: float, tries: int = 25, gap: float = 0.06, upright: bool = False
    ) -> Footprint | None:
        """Find free floor for a rectangle at a random angle (0 or 90 degrees if `upright`) and reserve it."""
        for _ in range(tries):
            quarter = self.integer(0, 1) * np.pi / 2
            angle = quarter if upright else self.uniform(0, np.pi)
            x = self.uniform(-self.width / 2, self.width / 2)
            y = self.uniform(-self.depth / 2, self.depth / 2)
            if self.free(Footprint(x, y, half_x + gap, half_y + gap, angle)):
                self.footprints.append(Footprint(x, y, half_x, half_y, angle))
                return self.footprints[-1]
        return None

    def scene(self) -> Scene:
        return Scene(self.width, self.depth, self.height, self.solids, self.lights, self.footprints, self.anchors)


@dataclass(frozen=True)
class Piece:
    """One object under construction: all its solids share class and instance."""

    builder: SceneBuilder
    cls: int
    instance: int
    frame: Matrix

    def add(self, shape: Shape, centre: Size, size: Size, material: Material, angle: float = 0.0) -> None:
        """Add a solid with its centre and edge lengths in the object's frame, turned about its own z axis."""
        matrix = self.frame @ move(*centre) @ turn(angle) @ np.diag([*size, 1.0])
        self.builder.solids.append(Solid(shape, matrix, self.cls, self.instance, material))

    def box(self, centre: Size, size: Size, material: Material, angle: float = 0.0) -> None:
        self.add(Shape.BOX, centre, size, material, angle)

    def round(self, centre: Size, diameter: float, height: float, material: Material) -> None:
        self.add(Shape.CYLINDER, centre, (diameter, diameter, height), material)
