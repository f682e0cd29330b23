"""Recipes for the free-standing objects: tables, chairs, loose solids and standing lamps.

Each function writes one object to a `SceneBuilder`. Sizes are metres and follow real furniture, a little on the large
side so that every class covers enough pixels to be learnt from small images.
"""

from __future__ import annotations

import numpy as np

from edgemtl.data.rooms.materials import (
    Material,
    Texture,
    sample_glow,
    sample_pattern,
    sample_solid,
    sample_wood,
)
from edgemtl.data.rooms.scene import Footprint, Light, Matrix, Piece, SceneBuilder, move, turn
from edgemtl.data.rooms.shapes import Shape

LOOSE = ("box", "ball", "cylinder", "cone")


def table_material(b: SceneBuilder) -> Material:
    pick = b.rng.random()
    if pick < 0.65:
        return sample_wood(b.rng, axis=0)
    return sample_solid(b.rng, saturated=pick > 0.9)


def chair_material(b: SceneBuilder) -> Material:
    pick = b.rng.random()
    if pick < 0.6:
        return sample_solid(b.rng)
    if pick < 0.8:
        return sample_wood(b.rng)
    return sample_pattern(b.rng, (5, 12), (Texture.STRIPE, Texture.CHECK, Texture.DOTS))


def loose_object(b: SceneBuilder, name: str, frame: Matrix, size: float) -> float:
    """A box, ball, cylinder or cone standing on the frame's origin; returns its height."""
    tall = size if name == "ball" else size * b.uniform(0.7, 1.5)
    wide = size * (b.uniform(0.7, 1.3) if name == "box" else 1.0)
    pick = b.rng.random()
    if name == "ball":
        material = (
            sample_pattern(b.rng, (3, 8), (Texture.PIE, Texture.DOTS, Texture.STRIPE, Texture.CHECK))
            if pick < 0.65
            else sample_solid(b.rng)
        )
    elif name == "cone":
        material = (
            sample_pattern(b.rng, (2, 7), (Texture.STRIPE, Texture.PIE, Texture.NOISE))
            if pick < 0.5
            else sample_solid(b.rng)
        )
    elif name == "cylinder":
        material = (
            sample_pattern(b.rng, (3, 9), (Texture.STRIPE, Texture.NOISE, Texture.TILE))
            if pick < 0.45
            else sample_solid(b.rng, pick < 0.75)
        )
    elif pick < 0.3:
        material = sample_wood(b.rng)
    elif pick < 0.65:
        material = sample_pattern(b.rng, (3, 9), (Texture.CHECK, Texture.NOISE, Texture.TILE, Texture.STRIPE))
    else:
        material = sample_solid(b.rng, pick < 0.85)
    piece = b.new(name, frame, tall / 2)
    shape = {"box": Shape.BOX, "ball": Shape.BALL, "cylinder": Shape.CYLINDER, "cone": Shape.CONE}[name]
    piece.add(shape, (0, 0, tall / 2), (size, wide, tall), material)
    return tall


def scatter_on(b: SceneBuilder, frame: Matrix, half_x: float, half_y: float, height: float, count: int) -> None:
    """Put loose objects side by side on a rectangle `height` above the frame."""
    spots = np.linspace(-1, 1, 2 * count + 1)[1::2] * half_x
    cell = half_x / max(count, 1)
    for spot in b.rng.permutation(spots):
        name = LOOSE[b.integer(0, 3)]
        size = min(b.uniform(0.2, 0.45), 1.4 * cell, 1.2 * half_y)
        if size < 0.1:
            continue
        slack = max(0.0, half_y - 0.7 * size)
        at = frame @ move(float(spot), b.uniform(-slack, slack), height) @ turn(b.uniform(0, np.pi))
        loose_object(b, name, at, size)


def table(b: SceneBuilder) -> tuple[int, Matrix, float] | None:
    """A table with its load and the chairs about it. Returns footprint number, frame and height."""
    long, short, high = b.uniform(0.9, 1.8), b.uniform(0.7, 1.0), b.uniform(0.42, 0.8)
    is_round = b.chance(0.25)
    if is_round:
        long = short = b.uniform(0.9, 1.3)
    spot = b.place(long / 2, short / 2, upright=b.chance(0.5))
    if spot is None:
        return None
    number = len(b.footprints) - 1
    frame = move(spot.x, spot.y, 0) @ turn(spot.angle)
    top = table_material(b)
    base = top if b.chance(0.7) else table_material(b)
    piece, thick = b.new("table", frame, high), b.uniform(0.035, 0.08)
    if is_round:
        piece.round((0, 0, high - thick / 2), long, thick, top)
        piece.round((0, 0, (high - thick) / 2), b.uniform(0.1, 0.25), high - thick, base)
        piece.round((0, 0, 0.02), long * 0.55, 0.04, base)
    elif b.chance(0.3):  # a desk on two side panels, sometimes with a back
        for side in (-1, 1):
            piece.box((side * (long / 2 - 0.05), 0, (high - thick) / 2), (0.05, short * 0.9, high - thick), base)
        if b.chance(0.6):
            piece.box((0, short * 0.4, high * 0.6), (long - 0.16, 0.03, high * 0.5), base)
        piece.box((0, 0, high - thick / 2), (long, short, thick), top)
    else:
        leg = b.uniform(0.06, 0.11)
        for sx in (-1, 1):
            for sy in (-1, 1):
                at = (sx * (long / 2 - leg), sy * (short / 2 - leg), (high - thick) / 2)
                piece.box(at, (leg, leg, high - thick), base)
        piece.box((0, 0, high - thick / 2), (long, short, thick), top)
    spread = 0.6 if is_round else 0.9
    scatter_on(b, frame, long / 2 * spread, short / 2 * spread, high, b.integer(1, 3))
    return number, frame, high


def chairs_around(b: SceneBuilder, number: int, frame: Matrix, count: int) -> None:
    """Chairs that face the table with footprint `number`, not quite pushed in."""
    top = b.footprints[number]
    sides = [(0, -1, top.half_y), (0, 1, top.half_y), (1, 0, top.half_x), (-1, 0, top.half_x)]
    for k in b.rng.permutation(4)[:count]:
        dx, dy, reach = sides[int(k)]
        away = reach + b.uniform(0.2, 0.4)
        slide = b.uniform(-0.25, 0.25)
        at = frame @ move(dx * away + (slide if dx == 0 else 0), dy * away + (slide if dy == 0 else 0), 0)
        angle = top.angle + float(np.arctan2(-dy, -dx)) - np.pi / 2 + b.uniform(-0.3, 0.3)
        chair(b, Footprint(float(at[0, 3]), float(at[1, 3]), 0.26, 0.26, angle))


def chair(b: SceneBuilder, spot: Footprint | None = None) -> None:
    """A chair, an armchair or a stool that faces its own +y; `spot` asks for a place, else any free floor."""
    kind = b.rng.choice(["chair", "armchair", "stool"], p=[0.6, 0.27, 0.13]) if spot is None else "chair"
    half = 0.42 if kind == "armchair" else 0.27
    if spot is None:
        spot = b.place(half, half)
        if spot is None:
            return
        spot = Footprint(spot.x, spot.y, half, half, spot.angle + np.pi * b.integer(0, 1))
    elif b.free(spot):
        b.footprints.append(spot)
    else:
        return
    frame = move(spot.x, spot.y, 0) @ turn(spot.angle)
    main = chair_material(b)
    piece = b.new("chair", frame, 0.5)
    if kind == "armchair":
        _armchair(b, piece, main)
    elif kind == "stool":
        high = b.uniform(0.45, 0.7)
        piece.round((0, 0, high - 0.05), 0.42, 0.1, main)
        piece.round((0, 0, high / 2 - 0.05), 0.08, high - 0.1, main)
        piece.round((0, 0, 0.015), 0.4, 0.03, main)
    else:
        frame_material = main if b.chance(0.6) else chair_material(b)
        wide, seat, back = b.uniform(0.44, 0.52), b.uniform(0.42, 0.48), b.uniform(0.42, 0.6)
        piece.box((0, 0, seat - 0.03), (wide, wide, 0.06), main)
        piece.box((0, 0.03 - wide / 2, seat + back / 2), (wide, 0.05, back), main)
        for sx in (-1, 1):
            for sy in (-1, 1):
                at = (sx * (wide / 2 - 0.03), sy * (wide / 2 - 0.03), (seat - 0.06) / 2)
                piece.box(at, (0.05, 0.05, seat - 0.06), frame_material)


def _armchair(b: SceneBuilder, piece: Piece, main: Material) -> None:
    wide, seat, back = b.uniform(0.75, 0.82), b.uniform(0.36, 0.44), b.uniform(0.75, 0.95)
    arm = b.uniform(0.1, 0.15)
    cushion = main if b.chance(0.5) else chair_material(b)
    piece.box((0, 0.08, seat / 2), (wide - 2 * arm, wide - 0.18, seat), cushion)
    piece.box((0, 0.08 - wide / 2, back / 2), (wide, 0.16, back), main)
    for side in (-1, 1):
        piece.box((side * (wide - arm) / 2, 0.08, 0.3), (arm, wide - 0.16, 0.6), main)


def floor_object(b: SceneBuilder, name: str) -> None:
    """A large loose object on the floor, boxes and cylinders sometimes with another on top."""
    size = b.uniform(0.42, 0.8)
    spot = b.place(size * 0.6, size * 0.6)
    if spot is None:
        return
    frame = move(spot.x, spot.y, 0) @ turn(spot.angle)
    tall = loose_object(b, name, frame, size)
    if name in ("box", "cylinder") and tall < 0.8 and b.chance(0.45):
        loose_object(b, LOOSE[b.integer(0, 3)], frame @ move(0, 0, tall) @ turn(b.uniform(0, 3)), size * 0.62)


def lamp_shade(b: SceneBuilder, piece: Piece, centre: float, diameter: float) -> None:
    """A lit shade about (0, 0, centre) of the piece and the light that comes from it."""
    glow = sample_glow(b.rng)
    pick = b.rng.random()
    tall = diameter if pick > 0.75 else diameter * b.uniform(0.65, 0.95)
    shape = Shape.SHADE if pick < 0.5 else Shape.CYLINDER if pick <= 0.75 else Shape.BALL
    piece.add(shape, (0, 0, centre), (diameter, diameter, tall), glow)
    x, y, z = (float(v) for v in (piece.frame @ [0, 0, centre, 1])[:3])
    power = b.uniform(0.25, 0.9)
    b.lights.append(Light((x, y, z), glow.first, power, radius=diameter * 0.4, shell=0.75 * max(diameter, tall)))


def floor_lamp(b: SceneBuilder) -> None:
    """A standing lamp."""
    spot = b.place(0.24, 0.24)
    if spot is None:
        return
    frame = move(spot.x, spot.y, 0)
    high, wide = b.uniform(1.25, 1.65), b.uniform(0.38, 0.58)
    stem = sample_solid(b.rng, saturated=False)
    piece = b.new("lamp", frame, high)
    piece.round((0, 0, 0.02), 0.32, 0.04, stem)
    piece.round((0, 0, high / 2), 0.05, high, stem)
    lamp_shade(b, piece, high, wide)


def pendant(b: SceneBuilder, x: float, y: float, bottom: float) -> None:
    """A lamp that hangs from the ceiling, its shade not below `bottom`."""
    wide = b.uniform(0.36, 0.62)
    high = min(b.height - wide, max(bottom + wide / 2, b.height - b.uniform(0.55, 1.1)))
    piece = b.new("lamp", move(x, y, 0), high)
    piece.round((0, 0, (b.height + high) / 2), 0.025, b.height - high, sample_solid(b.rng, saturated=False))
    lamp_shade(b, piece, high, wide)
