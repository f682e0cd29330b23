"""What hangs on walls: pictures, mirrors, papers, whiteboards, towels."""

from __future__ import annotations

import numpy as np

from edgemtl.data.homes.build import Builder
from edgemtl.data.homes.mesh import Maker, Mesh, Surface
from edgemtl.data.homes.place import Placed, Room
from edgemtl.data.homes.props import material, textured
from edgemtl.data.homes.shell import linear, on_wall


def framed(b: Builder, wide: float, high: float, inside: Surface, border: float, thick: float = 0.03) -> Mesh:
    """A flat thing with a frame, in the frame of a wall: centred on x, from z = 0."""
    maker, frame = Maker(), material(b)
    x = wide / 2
    maker.quad((x, thick * 0.6, 0), (-x, thick * 0.6, 0), (-x, thick * 0.6, high), (x, thick * 0.6, high), inside)
    for low, top in (
        ((-x - border, 0, -border), (x + border, thick, 0)),
        ((-x - border, 0, high), (x + border, thick, high + border)),
        ((-x - border, 0, 0), (-x, thick, high)),
        ((x, 0, 0), (x + border, thick, high)),
    ):
        maker.box(low, top, frame)
    return maker.mesh()


def hang_on_wall(
    b: Builder,
    room: Room,
    name: str,
    wide: float,
    high: float,
    low: float,
    inside: Surface,
    border: float,
    thick: float = 0.03,
    above: Placed | None = None,
) -> bool:
    """A framed thing on a wall, above an item if given. Returns whether there was a place."""
    for _ in range(6):
        wall = room.walls[b.integer(0, 3)]
        at = b.uniform(wide / 2 + 0.1, max(wide / 2 + 0.11, wall.length - wide / 2 - 0.1))
        if above is not None:
            wall = min(room.walls, key=lambda w: abs((np.array([above.x, above.y]) - w.start) @ w.inward))
            at = float((np.array([above.x, above.y]) - wall.start) @ wall.along) + b.uniform(-0.2, 0.2)
        a, c = at - wide / 2 - border, at + wide / 2 + border
        top = low + high + border
        if a < 0.03 or c > wall.length - 0.03 or top > room.height - 0.05 or not wall.free(a, c, low, top, 0.08):
            continue
        if not b.hang_free(room, wall, a, c, low, top):
            continue
        b.hang(room, wall, a, c, low, top)
        b.add(name, framed(b, wide, high, inside, border, thick), on_wall(wall, at, low))
        x, y = wall.point(at)
        b.anchors.append((float(x), float(y), low + high / 2))
        return True
    return False


def pictures(b: Builder, room: Room, low: int, high: int) -> None:
    """Some framed pictures at eye height."""
    for _ in range(b.integer(low, high)):
        size = b.uniform(0.2, 0.5) if b.chance(0.55) else b.uniform(0.5, 1.1)
        wide, tall = size * b.uniform(0.7, 1.3), size * b.uniform(0.7, 1.3)
        tall = min(tall, 0.95)
        z = b.uniform(1.15, 1.75) - tall / 2 * b.uniform(0.5, 1.0)
        hang_on_wall(b, room, "picture", wide, tall, max(z, 0.95), textured(b, "art", 0.04), b.uniform(0.008, 0.06))


def mirror(b: Builder, room: Room, above: Placed | None = None, low: float = 1.05) -> None:
    """A framed mirror, above an item if given."""
    wide, tall = b.uniform(0.4, 1.1), b.uniform(0.5, 0.95)
    hang_on_wall(
        b, room, "mirror", wide, tall, low, Surface((0.85, 0.88, 0.87), mirror=True), b.uniform(0.01, 0.06), 0.03, above
    )


def papers_on_wall(b: Builder, room: Room) -> None:
    """A poster, a calendar, notes."""
    for _ in range(b.integer(1, 5)):
        size = b.uniform(0.2, 0.32)
        hang_on_wall(b, room, "paper", size, size * 1.35, b.uniform(1.1, 1.6), textured(b, "paper"), 0.002, 0.004)


def whiteboard(b: Builder, room: Room) -> None:
    """A white board."""
    level = b.uniform(0.8, 0.95)
    hang_on_wall(
        b,
        room,
        "whiteboard",
        b.uniform(0.9, 2.4),
        b.uniform(0.8, 1.15),
        b.uniform(0.85, 1.0),
        Surface(linear(level, level, level), gloss=0.15),
        0.02,
    )


def towel(b: Builder, room: Room) -> None:
    """A towel on a bar."""
    wide, high, low = b.uniform(0.3, 0.6), b.uniform(0.4, 0.8), b.uniform(0.6, 1.1)
    spot = b.wall_spot(room, wide, 0.08, high, low=low)
    if spot is None:
        return
    wall, at, *_ = spot
    t = np.linspace(0, 1, 13)
    z = np.linspace(0, high, 4)[:, None]
    grid = np.stack(
        [wide * (t - 0.5)[None] + 0 * z, 0.06 + 0.008 * np.sin(b.uniform(6, 20) * t)[None] + 0 * z, z + 0 * t[None]], -1
    )
    maker = Maker()
    maker.sheet(grid, textured(b, "cloth"))
    maker.box(
        (-wide / 2 - 0.04, 0.045, high), (wide / 2 + 0.04, 0.07, high + 0.02), Surface((0.5, 0.5, 0.5), gloss=0.5)
    )
    b.hang(room, wall, at - wide / 2, at + wide / 2, low, low + high)
    b.add("towel", maker.mesh(), on_wall(wall, at, low))
