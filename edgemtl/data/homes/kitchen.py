"""Kitchens: runs of cabinets with a counter, a sink, a stove, upper cabinets, machines."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgemtl.data.homes import props
from edgemtl.data.homes.build import Builder
from edgemtl.data.homes.mesh import Maker, Mesh, Surface, cushion
from edgemtl.data.homes.patterns import draw
from edgemtl.data.homes.place import Placed, Room, Wall
from edgemtl.data.homes.shell import on_wall, paint
from edgemtl.data.homes.tables import dining_table
from edgemtl.data.rooms.scene import Footprint, move, turn

DEEP, HIGH = 0.6, 0.9


def kitchen(b: Builder, room: Room, number: int, day: float) -> None:
    """A fridge, one to three runs of cabinets, an island or a table."""
    front = props.material(b)
    top = Surface((1.0, 1.0, 1.0), draw("stone" if b.chance(0.75) else "veneer", b.rng), gloss=0.15)
    b_found = b.against(room, "fridge", front=0.4, corner=True)
    order = sorted(range(4), key=lambda k: -_longest(b, room, room.walls[k])[1])
    for k in order[: b.integer(1, 3)]:
        wall = room.walls[k]
        start, length = _longest(b, room, wall)
        if length > 1.0:
            run(b, room, wall, start, min(length, b.uniform(1.8, 4.5)), front, top)
    if b.chance(0.3):
        b.against(room, "washer")
    if b.chance(0.25):
        island = b.somewhere(room, "island", gap=0.5, turned=False)
        b.scatter(island, "small dining", 1, 5)
    if b.chance(0.6):
        dining_table(b, room)
    for _ in range(b.integer(0, 3) if b.chance(0.5) else 0):
        b.somewhere(room, "stool")
    if b_found is not None and b.chance(0.4):
        props.on_top(b, b_found, "box", props.carton(b))


def _longest(b: Builder, room: Room, wall: Wall) -> tuple[float, float]:
    """The longest stretch of a wall that is free for cabinets: (start, length)."""
    best, start, at = (0.0, 0.0), 0.0, 0.02
    while at <= wall.length:
        x, y = wall.point(min(at + 0.1, wall.length), 0.35)
        small = Footprint(float(x), float(y), 0.1, 0.32, wall.angle)
        good = (
            at + 0.2 < wall.length
            and b.free(room, small)
            and not any(g.low < HIGH and g.a < at + 0.22 and g.b > at - 0.02 for g in wall.gaps)
        )
        if not good:
            if at - start > best[1]:
                best = (start, at - start)
            start = at + 0.2
        at += 0.2
    return best


def run(b: Builder, room: Room, wall: Wall, start: float, length: float, front: Surface, top: Surface) -> None:
    """Lower cabinets with a counter, a sink, a stove, upper cabinets, things."""
    x, y = wall.point(start + length / 2, DEEP / 2)
    footprint = Footprint(float(x), float(y), length / 2, DEEP / 2, wall.angle)
    if not b.free(room, Footprint(float(x), float(y), length / 2 - 0.01, DEEP / 2, wall.angle)):
        return
    b.footprints.append(footprint)
    frame = on_wall(wall, start, 0)
    count = max(1, round(length / 0.55))
    w = length / count
    stove_at = b.integer(0, count - 1) if b.chance(0.6) and count > 1 else -1
    found = b.model("stove", (0.75, 0.8)) if stove_at >= 0 else None
    knob = Surface((0.35, 0.33, 0.3), gloss=0.5)
    counter, maker = Maker(), Maker()
    drawers = b.chance(0.3)
    for k in range(count):
        a, c = k * w, (k + 1) * w
        if k == stove_at and found is not None:
            entry, mesh = found
            px, py = wall.point(start + (a + c) / 2, entry.size[1] / 2 + 0.02)
            scale = np.diag([w / entry.size[0], 1.0, HIGH / entry.size[2] if entry.size[2] < 1 else 1.0, 1.0])
            b.add(
                entry.cls,
                mesh,
                move(float(px), float(py), 0) @ turn(wall.angle) @ scale,
                b.tint(),
                entry.id,
            )
            continue
        maker.box((a, 0, 0.1), (c, DEEP - 0.04, HIGH - 0.04), front)
        maker.box((a, 0, 0), (c, DEEP - 0.1, 0.1), Surface((0.04, 0.04, 0.04)))
        split = HIGH - 0.2 if not drawers or k % 2 else 0.5
        for low, high in ((0.11, split - 0.005), (split + 0.005, HIGH - 0.05)):
            maker.box((a + 0.006, DEEP - 0.04, low), (c - 0.006, DEEP - 0.02, high), front)
            if high - low > 0.05:
                z = (low + high) / 2 if high - low < 0.3 else high - 0.12
                maker.box(((a + c) / 2 - 0.05, DEEP - 0.02, z), ((a + c) / 2 + 0.05, DEEP - 0.005, z + 0.015), knob)
        counter.box((a, 0, HIGH - 0.04), (c, DEEP, HIGH), top)
    if b.chance(0.6):
        counter.box(
            (0, 0, HIGH),
            (length, 0.02, HIGH + b.uniform(0.08, 0.5)),
            top if b.chance(0.5) else props.textured(b, "tiles"),
        )
    if maker.parts:
        b.add("cabinet", maker.mesh(), frame)
    b.anchors.append((float(x), float(y), HIGH))
    if not counter.parts:
        return
    slab = counter.mesh()
    b.add("counter", slab, frame)
    b.hang(room, wall, start, start + length, 0, HIGH)
    if count > 2 and b.chance(0.75):
        k = (stove_at + 2) % count
        if k != stove_at:
            sink(b, wall, start + (k + 0.5) * w)
    uppers(b, room, wall, start, length, front, knob)
    # the counter as a place for things: its frame has y into the room, an item's has y to its back
    placed = Placed(_turned(slab, length), float(x), float(y), 0.0, wall.angle, footprint)
    if k_blocked := [(stove_at + 0.5) * w - length / 2] if stove_at >= 0 else []:
        placed.used.append((-k_blocked[0], 0.0, w / 2))
    if count > 2:
        placed.used.append((-(((stove_at + 2) % count + 0.5) * w - length / 2), 0.0, 0.3))
    b.scatter(placed, "small kitchen", 2, 4 + 2 * count)
    b.scatter(placed, "small dining", 0, 2 + count)
    if b.chance(0.4):
        props.on_top(b, placed, "otherprop", microwave(b), (-0.9, 0.9, 0.0, 0.6), 0.0)
    if b.chance(0.3):
        props.on_top(b, placed, "towel", cushion(0.3, 0.2, 0.05, props.textured(b, "cloth")))


def _turned(mesh: Mesh, length: float) -> Mesh:
    """A mesh in the frame of a wall as one in the frame of an item whose back is on it."""

    corners = mesh.corners.copy()
    corners[..., 0] = length / 2 - corners[..., 0]
    corners[..., 1] = DEEP / 2 - corners[..., 1]
    return replace(mesh, corners=corners)


def microwave(b: Builder) -> Mesh:
    """A microwave oven, front towards -y."""
    maker, body = Maker(), Surface(paint(b, 0.05, 0.9, 0.0), gloss=0.15)
    maker.box((-0.24, -0.18, 0), (0.24, 0.18, 0.28), body)
    maker.box((-0.22, -0.185, 0.03), (0.1, -0.18, 0.25), Surface((0.01, 0.01, 0.01), gloss=0.3))
    return maker.mesh()


def sink(b: Builder, wall: Wall, at: float) -> None:
    """A basin set on the counter: a rim, a dark hollow, a tap."""
    maker, steel = Maker(), Surface((0.45, 0.45, 0.46), gloss=0.4)
    maker.box((-0.27, 0.1, HIGH - 0.002), (0.27, 0.52, HIGH + 0.008), steel)
    maker.quad(
        (-0.24, 0.14, HIGH + 0.009),
        (0.24, 0.14, HIGH + 0.009),
        (0.24, 0.48, HIGH + 0.009),
        (-0.24, 0.48, HIGH + 0.009),
        Surface((0.16, 0.16, 0.17), gloss=0.2),
    )
    maker.box((-0.015, 0.07, HIGH), (0.015, 0.1, HIGH + 0.25), steel)
    maker.box((-0.012, 0.08, HIGH + 0.23), (0.012, 0.26, HIGH + 0.25), steel)
    b.add("sink", maker.mesh(), on_wall(wall, at, 0))


def uppers(b: Builder, room: Room, wall: Wall, start: float, length: float, front: Surface, knob: Surface) -> None:
    """Cabinets over the counter, where there is no window."""
    low = b.uniform(1.38, 1.5)
    high = min(b.uniform(2.05, 2.3), room.height - 0.05)
    if not b.chance(0.8):
        return
    count = max(1, round(length / 0.5))
    w = length / count
    maker, deep = Maker(), 0.33
    for k in range(count):
        a, c = k * w, (k + 1) * w
        if not wall.free(start + a, start + c, low, high) or not b.hang_free(
            room, wall, start + a + 0.05, start + c - 0.05, low, high
        ):
            continue
        if b.chance(0.12):
            continue
        maker.box((a, 0, low), (c, deep, high), front)
        maker.box((a + 0.006, deep, low + 0.006), (c - 0.006, deep + 0.018, high - 0.006), front)
        x = c - 0.06 if k % 2 == 0 else a + 0.05
        maker.box((x, deep + 0.018, low + 0.05), (x + 0.012, deep + 0.035, low + 0.15), knob)
    if maker.parts:
        b.add("cabinet", maker.mesh(), on_wall(wall, start, 0))
        b.hang(room, wall, start, start + length, low, high)
