"""The shell of a home: floors, ceilings, walls with doors, doorways and windows, curtains, blinds, daylight, lamps."""

from __future__ import annotations

import numpy as np

from edgemtl.data.homes.build import Builder
from edgemtl.data.homes.mesh import Colour, Maker, Surface, scaled
from edgemtl.data.homes.patterns import draw
from edgemtl.data.homes.place import Gap, Room, Wall
from edgemtl.data.rooms.scene import move, turn

WALL = 0.14  # metres between two rooms
WET = ("kitchen", "bathroom")


def linear(r: float, g: float, b: float) -> Colour:
    """A linear colour from sRGB 0..1."""
    x, y, z = (float(np.clip(c, 0.02, 0.96)) ** 2.2 for c in (r, g, b))
    return x, y, z


def paint(b: Builder, low: float = 0.45, high: float = 0.95, strong: float = 0.15) -> Colour:
    """A wall paint: mostly off-white or beige, now and then a strong colour."""
    level = b.uniform(low, high)
    if b.chance(strong):
        # a colour, but one that people live with
        r, g, c = (level + x for x in b.rng.uniform(-0.3, 0.12, 3) * b.uniform(0.3, 1.0))
        return linear(r, g, c)
    warm = b.uniform(-0.3, 1.0)
    return linear(level + 0.03 * warm, level, level - 0.1 * warm)


def rooms_of(b: Builder, kinds: list[str]) -> list[Room]:
    """Lay out rooms side by side, with a doorway between two."""
    height = b.uniform(2.35, 2.9)
    x = 0.0
    for kind in kinds:
        small = kind == "bathroom"
        width = b.uniform(1.8, 2.8) if small else b.uniform(2.7, 4.7)
        depth = b.uniform(1.9, 3.0) if small else b.uniform(2.9, 5.3)
        if kind in ("class", "living", "gym") and b.chance(0.5):
            width, depth = width * 1.25, depth * 1.1
        y = b.uniform(-0.6, 0.6) - depth / 2
        b.rooms.append(Room(kind, x, y, x + width, y + depth, height))
        x += width + WALL
    for left, right in zip(b.rooms[:-1], b.rooms[1:], strict=True):
        low, high = max(left.y0, right.y0) + 0.15, min(left.y1, right.y1) - 0.15
        wide = min(high - low, b.uniform(0.85, 1.0) if b.chance(0.55) else b.uniform(1.3, 2.6))
        a = b.uniform(low, high - wide)
        top = b.uniform(2.0, 2.15) if wide < 1.2 or b.chance(0.5) else height
        top = min(top, height)
        left.walls[1].gaps.append(Gap("way", a - left.y0, a + wide - left.y0, 0, top))
        right.walls[3].gaps.append(Gap("way", right.y1 - a - wide, right.y1 - a, 0, top))
        for room, side in ((left, left.x1), (right, right.x0)):
            inward = -0.35 if room is left else 0.35
            b.reserve(side + inward, a + wide / 2, 0.34, wide / 2, 0.0)
        maker, frame = Maker(), Surface(paint(b, 0.6, 0.95, 0.05), gloss=0.05)
        x0, x1 = left.x1, right.x0
        maker.box((x0 - 0.02, a - 0.04, 0), (x1 + 0.02, a + 0.01, top), frame)
        maker.box((x0 - 0.02, a + wide - 0.01, 0), (x1 + 0.02, a + wide + 0.04, top), frame)
        if top < height:
            maker.box((x0 - 0.02, a - 0.04, top - 0.01), (x1 + 0.02, a + wide + 0.04, top + 0.06), frame)
        b.add("door" if wide < 1.2 else "wall", maker.mesh(), np.eye(4))
        maker = Maker()
        maker.quad((x0, a, 0.001), (x1, a, 0.001), (x1, a + wide, 0.001), (x0, a + wide, 0.001), frame)
        b.add("floor", maker.mesh(), np.eye(4))
    return b.rooms


def openings(b: Builder, room: Room, outer: list[int]) -> None:
    """Decide where doors and windows are; only walls in `outer` have them."""
    doors = 1 if len(b.rooms) == 1 or b.chance(0.4) else 0
    for _ in range(doors + (1 if b.chance(0.15) else 0)):
        for _ in range(12):
            wall = room.walls[outer[int(b.rng.integers(len(outer)))]]
            wide = b.uniform(0.75, 0.95)
            at = b.uniform(0.1, 0.1 + max(0.0, wall.length - wide - 0.2))
            if at + wide + 0.08 < wall.length and wall.free(at, at + wide, 0, 2.1, 0.1):
                wall.gaps.append(Gap("door", at, at + wide, 0, b.uniform(1.98, 2.1)))
                x, y = wall.point(at + wide / 2, 0.4)
                b.reserve(float(x), float(y), wide / 2, 0.38, wall.angle)
                break
    count = b.integer(0, 1) if room.kind == "bathroom" else b.integer(0, 3) if b.chance(0.5) else b.integer(1, 2)
    for _ in range(count):
        for _ in range(10):
            wall = room.walls[outer[int(b.rng.integers(len(outer)))]]
            wide, high = b.uniform(0.6, 2.0), b.uniform(0.9, 1.5)
            if room.kind == "bathroom":
                wide, high = wide * 0.5, high * 0.6
            sill = b.uniform(0.75, 1.1) if b.chance(0.8) else 0.15
            if room.kind in WET:
                sill = max(sill, 1.05)
            top = min(sill + high + (0.6 if sill < 0.3 else 0), room.height - 0.15)
            at = b.uniform(0.15, max(0.16, wall.length - wide - 0.15))
            if at + wide + 0.12 < wall.length and wall.free(at, at + wide, sill, top, 0.2):
                wall.gaps.append(Gap("window", at, at + wide, sill, top))
                break


def surfaces(b: Builder, room: Room) -> None:
    """Floor, ceiling, walls, skirting of a room."""
    wet = room.kind in WET
    roll = b.uniform(0, 1)
    kind = "tiles" if wet and roll < 0.75 else "planks" if roll < 0.5 else "carpet" if roll < 0.85 else "tiles"
    if room.kind == "bedroom" and b.chance(0.4):
        kind = "carpet"
    size = {"tiles": b.uniform(0.8, 1.8), "planks": b.uniform(0.8, 1.4), "carpet": b.uniform(0.6, 1.2)}[kind]
    floor = Surface((1.0, 1.0, 1.0), draw(kind, b.rng), gloss=0.0 if kind == "carpet" else b.uniform(0.02, 0.2))
    maker = Maker()
    x0, y0, x1, y1, h = room.x0, room.y0, room.x1, room.y1, room.height
    if b.chance(0.5):
        maker.quad((x0, y0, 0), (x1, y0, 0), (x1, y1, 0), (x0, y1, 0), floor, 1 / size)
    else:
        maker.quad((x1, y0, 0), (x1, y1, 0), (x0, y1, 0), (x0, y0, 0), floor, 1 / size)
    b.add("floor", maker.mesh(), np.eye(4))
    maker = Maker()
    white = b.uniform(0.8, 0.96)
    ceiling = Surface(linear(white, white, white - b.uniform(0, 0.06)), draw("plaster", b.rng))
    if room.kind in ("office", "class") and b.chance(0.5):
        ceiling = Surface((1.0, 1.0, 1.0), draw("tiles", b.rng))
    maker.quad((x0, y0, h), (x0, y1, h), (x1, y1, h), (x1, y0, h), ceiling, 0.6)
    b.add("ceiling", maker.mesh(), np.eye(4))
    base = Surface(paint(b), draw("plaster", b.rng), gloss=b.uniform(0, 0.05))
    if b.chance(0.17):
        base = Surface((1.0, 1.0, 1.0), draw("wallpaper", b.rng))
    if room.kind == "bathroom" and b.chance(0.6):
        base = Surface((1.0, 1.0, 1.0), draw("tiles", b.rng), gloss=0.15)
    accent = Surface(paint(b, strong=0.7), draw("plaster", b.rng)) if b.chance(0.2) else base
    repeat = 1 / b.uniform(0.9, 2.2)
    skirting = Surface(paint(b, 0.3, 0.95, 0.05), gloss=0.1) if b.chance(0.7) else None
    special = b.integer(0, 3)
    for number, wall in enumerate(room.walls):
        _wall(b, wall, h, accent if number == special else base, repeat, skirting)


def _wall(b: Builder, wall: Wall, height: float, surface: Surface, repeat: float, skirting: Surface | None) -> None:
    maker = Maker()

    def panel(a: float, c: float, low: float, high: float) -> None:
        if c - a > 1e-3 and high - low > 1e-3:
            (ax, ay), (cx, cy) = wall.point(a), wall.point(c)
            maker.quad((ax, ay, low), (cx, cy, low), (cx, cy, high), (ax, ay, high), surface, repeat)

    at = 0.0
    # only doorways are holes; doors and windows lie on the wall
    holes = sorted((g for g in wall.gaps if g.kind == "way"), key=lambda g: g.a)
    for gap in holes:
        panel(at, gap.a, 0, height)
        panel(gap.a, gap.b, gap.high, height)
        at = gap.b
    panel(at, wall.length, 0, height)
    if maker.parts:
        b.add("wall", maker.mesh(), np.eye(4))
    if skirting is not None:
        maker = Maker()
        at = 0.0
        gaps = sorted((g for g in wall.gaps if g.low < 0.1), key=lambda g: g.a)
        for end, then in [*((g.a, g.b) for g in gaps), (wall.length, wall.length)]:
            if end - at > 0.02:
                maker.box((at, 0.0, 0), (end, 0.015, 0.09), skirting)
            at = then
        if maker.parts:
            b.add("wall", maker.mesh(), on_wall(wall, 0.0, 0.0))


def on_wall(wall: Wall, at: float, z: float, off: float = 0.0) -> np.ndarray:
    """The frame of a wall: x along it, y into the room, z up, origin at `at` metres along and `z` up."""
    x, y = wall.point(at, off)
    matrix = np.eye(4)
    matrix[:2, 0], matrix[:2, 1], matrix[:3, 3] = wall.along, wall.inward, (x, y, z)
    return matrix


def doors(b: Builder, room: Room) -> None:
    """Fill the doors: models, or a panelled leaf of our own."""
    for wall in room.walls:
        for gap in (g for g in wall.gaps if g.kind == "door"):
            wide = gap.b - gap.a
            if b.chance(0.4):
                found = b.model("door", (1.1, 0.3))
                if found is not None and found[0].size[0] < wide + 0.2:
                    x, y = wall.point((gap.a + gap.b) / 2, 0.01)
                    sx, sz = wide / found[0].size[0], gap.high / found[0].size[2]
                    at = move(float(x), float(y), 0) @ turn(wall.angle) @ np.diag([sx, 0.8, sz, 1.0])
                    b.add("door", found[1], at, b.tint(0.05), found[0].id)
                    continue
            maker = Maker()
            leaf = Surface(paint(b, 0.6, 0.97, 0.1), gloss=0.06)
            if b.chance(0.35):
                leaf = Surface((1.0, 1.0, 1.0), draw("veneer", b.rng), gloss=0.06)
            frame = leaf if b.chance(0.6) else Surface(paint(b, 0.4, 0.97, 0.05))
            maker.box((0, 0, 0), (wide, 0.02, gap.high), leaf)
            for low, high in ((0.15, 0.9), (1.05, gap.high - 0.15)) if b.chance(0.7) else ():
                for left, right in ((0.12, wide / 2 - 0.05), (wide / 2 + 0.05, wide - 0.12)):
                    maker.box((left, 0.02, low), (right, 0.03, high), leaf)
                    maker.box(
                        (left + 0.03, 0.03, low + 0.03),
                        (right - 0.03, 0.031, high - 0.03),
                        Surface(scaled(leaf.colour, 0.8), leaf.texture),
                    )
            for low, high in ((-0.08, 0.0), (wide, wide + 0.08)):
                maker.box((low, 0, 0), (high, 0.035, gap.high), frame)
            maker.box((-0.08, 0, gap.high), (wide + 0.08, 0.035, gap.high + 0.08), frame)
            knob = wide - 0.1 if b.chance(0.5) else 0.06
            maker.box((knob, 0.03, 0.98), (knob + 0.05, 0.08, 1.03), Surface((0.45, 0.4, 0.3), gloss=0.5))
            b.add("door", maker.mesh(), on_wall(wall, gap.a, 0.0))
