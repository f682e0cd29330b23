"""Shelves with books and boxes in them, cabinets and dressers with fronts and knobs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgemtl.data.homes.build import Builder
from edgemtl.data.homes.mesh import Maker, Mesh, Surface, scaled
from edgemtl.data.homes.place import Placed, Room, Spot
from edgemtl.data.homes.props import carton, heap, material, textured
from edgemtl.data.rooms.scene import Footprint, move, turn

Thing = tuple[str, Mesh, tuple[float, float, float]]  # class, mesh, place in the frame of what holds it


def shelf_unit(b: Builder, wide: float, deep: float, high: float, books: float) -> tuple[Mesh, list[Thing]]:
    """Open shelves and what stands in them: meshes with their places in the frame of the shelves."""
    maker, wood = Maker(), material(b)
    t, x, y = 0.02, wide / 2, deep / 2
    back = b.chance(0.8)
    maker.box((-x, -y, 0), (-x + t, y, high), wood)
    maker.box((x - t, -y, 0), (x, y, high), wood)
    if back:
        maker.box((-x, y - 0.01, 0), (x, y, high), Surface(scaled(wood.colour, 0.7), wood.texture))
    columns = max(1, round(wide / b.uniform(0.5, 0.95)))
    rows = max(2, round(high / b.uniform(0.27, 0.4)))
    step, width = (high - t) / rows, (wide - t) / columns
    for k in range(1, columns):
        maker.box((-x + k * width, -y, 0), (-x + k * width + t, y, high), wood)
    things: list[Thing] = []
    for r in range(rows + 1):
        maker.box((-x, -y, r * step), (x, y, r * step + t), wood)
    for r in range(rows):
        for k in range(columns):
            left, room = -x + t + k * width, width - t
            base = r * step + t
            if b.chance(books):
                share, tall = b.uniform(0.45, 1.0), min(step - t - 0.02, b.uniform(0.19, 0.31))
                row, spine = Maker(), textured(b, "spines")
                start, run = left + (0 if b.chance(0.7) else room * (1 - share)), room * share
                front = -y + b.uniform(0.005, 0.05)
                # spines in steps, as books differ in height
                at = start
                while at < start + run - 0.03:
                    w = min(b.uniform(0.06, 0.22), start + run - at)
                    h = tall * b.uniform(0.75, 1.0)
                    push = b.uniform(0, 0.02)
                    u0 = b.uniform(0, 1)
                    p = np.array(
                        [
                            [at, front + push, base],
                            [at + w, front + push, base],
                            [at + w, front + push, base + h],
                            [at, front + push, base + h],
                        ],
                        np.float32,
                    )
                    uv = np.array([[u0, 0], [u0 + w / 0.5, 0], [u0 + w / 0.5, 1], [u0, 1]], np.float32)
                    index = np.array([[0, 1, 2], [0, 2, 3]])
                    row.add(p[index], spine, uv[index])
                    row.box(
                        (at, front + push + 0.001, base),
                        (at + w, front + push + 0.16, base + h),
                        Surface((0.6, 0.56, 0.46)),
                        skip="fb",
                    )
                    at += w
                things.append(("books", row.mesh(), (0, 0, 0)))
            elif b.chance(0.5):
                mesh = carton(b) if b.chance(0.5) else heap(b, min(0.35, room))
                size = mesh.size
                name = "box" if len(mesh.corners) < 100 else "clothes"
                if size[0] < room and size[2] < step - t and size[1] < deep:
                    things.append((name, mesh, (left + room / 2, 0.0, base)))
            elif b.chance(0.35):  # a door before the compartment
                maker.box((left, -y - 0.015, base), (left + room, -y, base + step - t), wood)
    return maker.mesh(), things


def shelves(b: Builder, room: Room, name: str = "bookshelf", books: float = 0.8) -> Placed | None:
    """Open shelves with books against a wall."""
    wide, deep = b.uniform(0.6, 1.1) if b.chance(0.6) else b.uniform(1.1, 2.4), b.uniform(0.22, 0.38)
    high = b.uniform(1.5, min(2.3, room.height - 0.1)) if b.chance(0.7) else b.uniform(0.7, 1.2)
    spot = b.wall_spot(room, wide, deep, high, corner=b.chance(0.4))
    if spot is None:
        return None
    mesh, things = shelf_unit(b, wide, deep, high, books)
    return stand_unit(b, room, spot, name, mesh, things, high)


def stand_unit(
    b: Builder, room: Room, spot: Spot, name: str, mesh: Mesh, things: Sequence[Thing] = (), high: float = 0.0
) -> Placed:
    """Put a piece of ours, with what is in it, at a place that `wall_spot` found."""
    wall, at, x, y, angle = spot
    size = mesh.size
    frame = move(x, y, 0) @ turn(angle)
    b.add(name, mesh, frame)
    for kind, thing, place in things:
        b.add(kind, thing, frame @ move(*place))
    b.hang(room, wall, at - size[0] / 2, at + size[0] / 2, 0, high or size[2])
    footprint = Footprint(x, y, size[0] / 2, size[1] / 2, angle)
    b.footprints.append(footprint)
    b.anchors.append((x, y, min(1.2, size[2] * 0.6)))
    return Placed(mesh, x, y, 0.0, angle, footprint)


def wall_shelf(b: Builder, room: Room) -> None:
    """A board on the wall with books or boxes."""
    wide, low = b.uniform(0.6, 1.4), b.uniform(1.25, 1.7)
    spot = b.wall_spot(room, wide, 0.22, 0.35, low=low)
    if spot is None:
        return
    wall, at, x, y, angle = spot
    mesh, things = shelf_unit(b, wide, 0.22, b.uniform(0.5, 0.75) if b.chance(0.4) and low < 1.5 else 0.33, 0.7)
    b.hang(room, wall, at - wide / 2, at + wide / 2, low, low + 0.4)
    frame = move(x, y, low) @ turn(angle)
    b.add("shelves", mesh, frame)
    for kind, thing, place in things:
        b.add(kind, thing, frame @ move(*place))


def cabinet(b: Builder, wide: float, deep: float, high: float, drawers: bool | None = None) -> Mesh:
    """A closed piece of furniture with fronts and knobs, from z = 0, front towards -y."""
    maker, body = Maker(), material(b)
    front = body if b.chance(0.8) else material(b)
    x, y = wide / 2, deep / 2
    foot = b.uniform(0.0, 0.1)
    maker.box((-x, -y, foot), (x, y, high), body)
    if foot > 0.03:
        maker.box((-x + 0.03, -y + 0.03, 0), (x - 0.03, y, foot), Surface((0.05, 0.04, 0.04)))
    maker.box((-x - 0.01, -y - 0.02, high - 0.025), (x + 0.01, y, high), body)
    columns = max(1, round(wide / b.uniform(0.4, 0.65)))
    split = b.chance(0.5) if drawers is None else drawers
    rows = max(1, round((high - foot) / b.uniform(0.17, 0.26))) if split else (2 if high > 1.7 and b.chance(0.5) else 1)
    knob = Surface((0.3, 0.28, 0.25), gloss=0.5)
    w, h = wide / columns, (high - foot - 0.035) / rows
    for i in range(columns):
        for j in range(rows):
            a, c = -x + i * w + 0.008, -x + (i + 1) * w - 0.008
            low, top = foot + j * h + 0.008, foot + (j + 1) * h - 0.006
            maker.box((a, -y - 0.015, low), (c, -y, top), front)
            if split:
                maker.box(
                    ((a + c) / 2 - 0.05, -y - 0.03, (low + top) / 2),
                    ((a + c) / 2 + 0.05, -y - 0.015, (low + top) / 2 + 0.015),
                    knob,
                )
            else:
                k = c - 0.05 if i % 2 == 0 else a + 0.04
                z = top - 0.2 if high < 1.2 else (low + top) / 2
                maker.box((k, -y - 0.035, z), (k + 0.012, -y - 0.015, z + 0.1), knob)
    return maker.mesh()


def piece(
    b: Builder,
    room: Room,
    name: str,
    wide: float,
    deep: float,
    high: float,
    drawers: bool | None = None,
    front: float = 0.3,
) -> Placed | None:
    """A cabinet of ours against a wall."""
    spot = b.wall_spot(room, wide, deep + 0.03, high, front, corner=b.chance(0.3))
    if spot is None:
        return None
    return stand_unit(b, room, spot, name, cabinet(b, wide, deep, high, drawers), high=high)
