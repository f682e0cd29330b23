"""Lays out one room: shell, ceiling panels, doors, pictures, shelves along the walls, then the furniture.

The order matters: what is fixed to a wall claims its wall span and the floor before it first, tables come with their
chairs, and loose objects fill what floor is left. Everything is drawn from one random generator, so a seed is a room.
"""

from __future__ import annotations

import numpy as np

from edgemtl.data.rooms import furniture
from edgemtl.data.rooms.materials import (
    Material,
    Texture,
    hsv,
    sample_art,
    sample_floor,
    sample_glow,
    sample_solid,
    sample_wall,
    sample_wood,
    shade,
)
from edgemtl.data.rooms.scene import Footprint, Light, Matrix, Scene, SceneBuilder, move, turn

Span = tuple[float, float, float, float]  # along the wall from, to; height from, to


class Wall:
    """One wall: a frame whose x runs along it, y points into the room; spans already taken."""

    def __init__(self, frame: Matrix, length: float) -> None:
        self.frame = frame
        self.length = length
        self.taken: list[Span] = []

    def claim(self, b: SceneBuilder, wide: float, low: float, high: float, gap: float = 0.08) -> float | None:
        """Reserve a rectangle somewhere along the wall; returns where its middle is."""
        slack = self.length / 2 - wide / 2 - 0.12
        if slack <= 0:
            return None
        for _ in range(12):
            u = b.uniform(-slack, slack)
            mine = (u - wide / 2 - gap, u + wide / 2 + gap, low - gap, high + gap)
            if all(mine[1] <= t[0] or mine[0] >= t[1] or mine[3] <= t[2] or mine[2] >= t[3] for t in self.taken):
                self.taken.append(mine)
                return u
        return None

    def floor(self, u: float, wide: float, deep: float, solid: bool = True) -> Footprint:
        """The floor rectangle before a wall span."""
        at = (self.frame @ [u, deep / 2, 0, 1])[:2]
        angle = float(np.arctan2(self.frame[1, 0], self.frame[0, 0]))
        return Footprint(float(at[0]), float(at[1]), wide / 2, deep / 2, angle, solid)


def build_room(rng: np.random.Generator) -> Scene:
    """Draw one furnished room."""
    width, depth = float(rng.uniform(3.4, 5.6)), float(rng.uniform(3.6, 5.8))
    b = SceneBuilder(rng, width, depth, float(rng.uniform(2.35, 2.85)))
    walls = [
        Wall(move(0, -depth / 2, 0), width),
        Wall(move(0, depth / 2, 0) @ turn(np.pi), width),
        Wall(move(width / 2, 0, 0) @ turn(np.pi / 2), depth),
        Wall(move(-width / 2, 0, 0) @ turn(-np.pi / 2), depth),
    ]
    beam = _shell(b)
    _panels(b, beam)
    for wall in b.rng.permutation(4)[: b.integer(1, 3)]:
        _door(b, walls[int(wall)])
    for wall in b.rng.permutation(4)[: b.integer(2, 4)]:
        _bookcase(b, walls[int(wall)])
    for wall in walls:
        for _ in range(b.integer(1, 3)):
            _picture(b, wall)
    _furnish(b)
    if b.chance(0.4):
        _wall_boards(b, walls[b.integer(0, 3)])
    return b.scene()


def _shell(b: SceneBuilder) -> bool:
    """Floor, ceiling and four walls as slabs outside the room; sometimes a pillar or a beam (then True)."""
    w, d, h, thick = b.width, b.depth, b.height, 0.1
    centre = move(0, 0, 0)
    b.new("floor", centre, 0).box((0, 0, -thick / 2), (w + 1, d + 1, thick), sample_floor(b.rng))
    ceiling = Material(Texture.FLAT, *(2 * (hsv(b.rng, (0.0, 0.12), (0.85, 1.0)),)))
    b.new("ceiling", centre, h).box((0, 0, h + thick / 2), (w + 1, d + 1, thick), ceiling)
    paint, accent = sample_wall(b.rng), sample_wall(b.rng)
    for k, side in enumerate((-1.0, 1.0)):
        one = accent if b.chance(0.2) and k == 0 else paint
        b.new("wall", centre, 1.2).box((side * (w + thick) / 2, 0, h / 2), (thick, d + 2 * thick, h), one)
        b.new("wall", centre, 1.2).box((0, side * (d + thick) / 2, h / 2), (w, thick, h), paint)
    b.anchors.clear()  # views are aimed at things, not at the shell
    if b.chance(0.25):
        thick = b.uniform(0.25, 0.5)
        x, y = b.integer(0, 1) * 2 - 1, b.integer(0, 1) * 2 - 1
        spot = Footprint(x * (w - thick) / 2, y * (d - thick) / 2, thick / 2, thick / 2, 0)
        b.footprints.append(spot)
        b.new("wall", move(spot.x, spot.y, 0), 1.2).box((0, 0, h / 2), (thick, thick, h), paint)
        b.anchors.pop()
    if not b.chance(0.2):
        return False
    material = sample_wood(b.rng, axis=1) if b.chance(0.5) else ceiling
    b.new("ceiling", centre, h).box((b.uniform(-w / 4, w / 4), 0, h - 0.09), (0.2, d, 0.18), material)
    b.anchors.pop()
    return True


def _panels(b: SceneBuilder, beam: bool) -> None:
    """One to three ceiling lamps, flat or discs, spread along the longer side; deep enough to show below a beam."""
    count = b.integer(1, 3)
    along = np.linspace(-1, 1, 2 * count + 1)[1::2]
    for t in along:
        x, y = b.uniform(-0.15, 0.15) * b.width, float(t) * b.depth * 0.42
        if b.width > b.depth:
            x, y = float(t) * b.width * 0.42, b.uniform(-0.15, 0.15) * b.depth
        size = b.uniform(0.45, 0.9)
        long = size * b.uniform(1.0, 1.7)
        glow = sample_glow(b.rng)
        low = b.height - (0.26 if beam else 0.08)
        piece = b.new("lamp", move(x, y, 0), b.height)
        if b.chance(0.35):
            long = size
            piece.round((0, 0, (low + b.height) / 2), size, b.height - low, glow)
        else:
            piece.box((0, 0, (low + b.height) / 2), (long, size, b.height - low), glow)
        power = b.uniform(2.0, 4.5) / count
        b.lights.append(Light((x, y, low - 0.01), glow.first, power, long / 2, size / 2))


def _door(b: SceneBuilder, wall: Wall) -> None:
    """A door leaf in its frame, with sunk fields and a handle; the floor before it stays free of furniture."""
    wide, high = b.uniform(0.85, 1.15) * (1.6 if b.chance(0.2) else 1), b.uniform(1.95, 2.15)
    u = wall.claim(b, wide + 0.16, 0.0, high + 0.1)
    if u is None:
        return
    b.footprints.append(wall.floor(u, wide, 0.55, solid=False))
    pick = b.rng.random()
    leaf = sample_wood(b.rng, axis=2) if pick < 0.6 else sample_solid(b.rng, saturated=pick > 0.85)
    trim = leaf if b.chance(0.6) else sample_solid(b.rng, saturated=False)
    piece = b.new("door", wall.frame @ move(u, 0, 0), high / 2)
    piece.box((0, 0.02, high / 2), (wide, 0.05, high), leaf)
    for side in (-1, 1):
        piece.box((side * (wide / 2 + 0.04), 0.02, (high + 0.08) / 2), (0.08, 0.058, high + 0.08), trim)
    piece.box((0, 0.02, high + 0.04), (wide, 0.056, 0.08), trim)
    # trim and fields stand out by millimetres only: a thicker rim would be a dotted crease at this resolution
    fields = b.integer(1, 3)
    raised = Material(
        leaf.texture,
        shade(leaf.first, 0.72),
        shade(leaf.second, 0.72),
        leaf.third,
        leaf.frequency,
        leaf.phase,
        leaf.axis,
        leaf.gloss,
    )
    for k in range(fields):
        tall = (high - 0.2) / fields - 0.12
        piece.box((0, 0.034, 0.16 + (k + 0.5) * (high - 0.2) / fields), (wide * 0.66, 0.03, tall), raised)
    metal = Material(Texture.FLAT, (0.5, 0.48, 0.4), (0.5, 0.48, 0.4), gloss=0.4)
    piece.box((wide * 0.42, 0.09, 1.02), (0.12, 0.05, 0.035), metal)


def _picture(b: SceneBuilder, wall: Wall) -> None:
    """A painting whose canvas stands proud of its frame's back, so that no two faces share a plane."""
    wide, tall = b.uniform(0.6, 1.4), b.uniform(0.5, 1.05)
    centre = b.uniform(1.3, 1.65)
    low, high = centre - tall / 2, centre + tall / 2
    u = wall.claim(b, wide, low, high) if high < b.height - 0.15 else None
    if u is None:
        return
    rim = b.uniform(0.03, 0.08)
    pick = b.rng.random()
    border = sample_wood(b.rng) if pick < 0.5 else sample_solid(b.rng, saturated=pick > 0.8)
    piece = b.new("picture", wall.frame @ move(u, 0, 0), centre)
    piece.box((0, 0.015, centre), (wide, 0.06, tall), border)
    piece.box((0, 0.031, centre), (wide - 2 * rim, 0.035, tall - 2 * rim), sample_art(b.rng))


def _bookcase(b: SceneBuilder, wall: Wall) -> None:
    """A bookcase against the wall, loaded with loose objects."""
    wide, deep, high = b.uniform(0.8, 1.5), b.uniform(0.28, 0.4), b.uniform(0.9, 2.1)
    u = wall.claim(b, wide, 0.0, high)
    if u is None:
        return
    spot = wall.floor(u, wide, deep + 0.04)
    if not b.free(spot, margin=-0.01):
        wall.taken.pop()
        return
    b.footprints.append(spot)
    pick = b.rng.random()
    body = sample_wood(b.rng) if pick < 0.45 else sample_solid(b.rng, saturated=pick > 0.8)
    back = body if b.chance(0.6) else sample_solid(b.rng, saturated=False)
    frame = wall.frame @ move(u, deep / 2 + 0.01, 0)
    piece, board = b.new("shelf", frame, high / 2), b.uniform(0.03, 0.06)
    for side in (-1, 1):
        piece.box((side * (wide - board) / 2, 0, high / 2), (board, deep, high), body)
    piece.box((0, 0.01 - deep / 2, high / 2), (wide - 2 * board, 0.02, high - 0.01), back)
    levels = max(2, round(high / b.uniform(0.38, 0.6)))
    pitch = (high - board) / levels
    for k in range(levels + 1):
        z = board / 2 + k * pitch
        piece.box((0, 0.012, z), (wide - 2 * board, deep - 0.024, board), body)
        if k < levels and b.chance(0.65):
            _load(b, frame @ move(0, 0.02, z + board / 2), wide / 2 - board, deep / 2, pitch - board)
    if high < 1.5 and b.chance(0.7):
        furniture.scatter_on(b, frame, wide / 2 - 0.05, deep / 2, high, b.integer(1, 3))


def _load(b: SceneBuilder, frame: Matrix, half_x: float, half_y: float, room: float) -> None:
    """Objects on one board of a shelf, low enough to fit under the next one."""
    count = b.integer(1, 3)
    cell = 2 * half_x / count
    for k in range(count):
        name = furniture.LOOSE[b.integer(0, 3)]
        size = min(b.uniform(0.14, 0.3), room / 1.6, cell * 0.7, half_y * 1.5)
        if size < 0.09:
            continue
        at = frame @ move(-half_x + (k + 0.5) * cell + b.uniform(-0.1, 0.1) * cell, 0, 0)
        furniture.loose_object(b, name, at, size)


def _wall_boards(b: SceneBuilder, wall: Wall) -> None:
    """Loose shelf boards on a wall, above head height of the furniture."""
    wide = b.uniform(0.8, 1.4)
    for low in (1.35, 1.8):
        u = wall.claim(b, wide, low - 0.05, low + 0.35)
        if u is None:
            continue
        frame = wall.frame @ move(u, 0.13, 0)
        body = sample_wood(b.rng) if b.chance(0.5) else sample_solid(b.rng, saturated=False)
        b.new("shelf", frame, low).box((0, 0, low - 0.025), (wide, 0.25, 0.05), body)
        _load(b, frame @ move(0, 0, low), wide / 2, 0.12, 0.3)


def _furnish(b: SceneBuilder) -> None:
    """Tables with chairs, armchairs, lamps and loose objects until the floor is well used."""
    area = b.width * b.depth
    for _ in range(b.integer(1, 2) if area < 20 else b.integer(2, 3)):
        made = furniture.table(b)
        if made is not None:
            number, frame, high = made
            furniture.chairs_around(b, number, frame, b.integer(1, 3))
            if b.chance(0.55):
                furniture.pendant(b, float(frame[0, 3]), float(frame[1, 3]), high + 0.75)
    for _ in range(b.integer(1, 2)):
        furniture.floor_lamp(b)
    for _ in range(b.integer(1, 3)):
        furniture.chair(b)
    kinds = [*furniture.LOOSE, *(furniture.LOOSE[b.integer(0, 3)] for _ in range(b.integer(1, 4)))]
    for k in b.rng.permutation(len(kinds)):
        furniture.floor_object(b, kinds[int(k)])
