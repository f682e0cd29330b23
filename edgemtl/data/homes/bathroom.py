"""Bathrooms: tubs, toilets, basins, mirrors, towels."""

from __future__ import annotations

import numpy as np

from edgemtl.data.homes import hangings, props, storage
from edgemtl.data.homes.build import Builder
from edgemtl.data.homes.mesh import Maker, Surface, cushion
from edgemtl.data.homes.place import Placed, Room
from edgemtl.data.rooms.scene import move, turn


def bathroom(b: Builder, room: Room, number: int, day: float) -> None:
    """A tub or a shower, a toilet, a basin with a mirror, towels, a mat."""
    tub = (
        b.against(room, "bathtub", corner=True, fits=(2, 2))
        if b.chance(0.65)
        else b.against(room, "shower", corner=True)
    )
    if tub is not None and b.chance(0.6):
        shower_curtain(b, room, tub)
    toilet = b.against(room, "toilet", front=0.4)
    basin = None
    if b.chance(0.5):
        basin = b.against(room, "basin", front=0.4, fits=(1.3, 0.8))
    if basin is None:
        wide = b.uniform(0.6, 1.3)
        spot = b.wall_spot(room, wide, 0.52, 0.85, 0.4)
        if spot is not None:
            basin = storage.stand_unit(
                b, room, spot, "cabinet", storage.cabinet(b, wide, 0.5, b.uniform(0.75, 0.88)), high=0.9
            )
            _bowl(b, basin)
    if basin is not None:
        hangings.mirror(b, room, basin, b.uniform(1.1, 1.25))
        b.scatter(basin, "small bath", 1, 5)
    for _ in range(b.integer(1, 3)):
        if b.chance(0.65):
            hangings.towel(b, room)
        else:
            found = b.model("towel wall", (0.8, 0.3))
            if found is not None:
                entry = found[0]
                spot = b.wall_spot(room, entry.size[0], entry.size[1], entry.size[2], low=max(0.55, entry.elevation))
                if spot is not None:
                    b.hang(room, spot[0], spot[1] - entry.size[0] / 2, spot[1] + entry.size[0] / 2, 0.55, 1.2)
                    b.stand(found, spot[2], spot[3], spot[4], max(0.55, entry.elevation))
    if b.chance(0.5) and (near := tub or toilet) is not None:
        ahead = np.array([np.sin(near.angle), -np.cos(near.angle)]) * (near.size[1] / 2 + 0.3)
        props.rug(b, room, near.x + ahead[0], near.y + ahead[1], near.angle, b.uniform(0.6, 0.9), b.uniform(0.4, 0.55))
    if b.chance(0.35):
        storage.piece(b, room, "cabinet", b.uniform(0.4, 0.7), 0.35, b.uniform(0.8, 1.8), front=0.1)
    if b.chance(0.25):
        b.against(room, "washer")
    if b.chance(0.15):
        b.against(room, "bidet")
    if toilet is not None and b.chance(0.3):
        props.on_top(b, toilet, "towel", cushion(0.3, 0.2, 0.06, props.textured(b, "cloth")), (-0.3, 0.3, 0.6, 0.9))


def _bowl(b: Builder, under: Placed) -> None:
    """A white bowl and a tap on a cabinet."""
    maker, white = Maker(), Surface((0.75, 0.75, 0.74), gloss=0.2)
    turn = np.linspace(0, 2 * np.pi, 25)
    rings = [(0.15, 0.0), (0.22, 0.03), (0.24, 0.06), (0.21, 0.06), (0.12, 0.015), (0.01, 0.012)]
    grid = np.array([[(r * np.cos(t), 0.8 * r * np.sin(t), z) for t in turn] for r, z in rings])
    maker.sheet(grid, white)
    maker.box((-0.012, 0.17, 0), (0.012, 0.195, 0.18), Surface((0.5, 0.5, 0.5), gloss=0.5))
    maker.box((-0.01, 0.06, 0.165), (0.01, 0.19, 0.18), Surface((0.5, 0.5, 0.5), gloss=0.5))
    props.on_top(b, under, "sink", maker.mesh(), (-0.1, 0.1, -0.1, 0.1), 0.0)


def shower_curtain(b: Builder, room: Room, tub: Placed) -> None:
    """A curtain along the front of a tub."""
    half = tub.size[:2] / 2
    wide = 2 * half[0] * b.uniform(0.3, 0.95)
    start = -half[0] if b.chance(0.5) else half[0] - wide
    t = np.linspace(0, 1, 8 * max(3, round(wide / 0.14)) + 1)
    z = np.linspace(0.12, min(2.0, room.height - 0.1), 5)[:, None]
    swing = 0.025 * np.sin(2 * np.pi * max(3, round(wide / 0.14)) * t)[None]
    grid = np.stack([start + wide * t[None] + 0 * z, -half[1] - 0.05 + swing + 0 * z, z + 0 * t[None]], -1)
    maker = Maker()
    maker.sheet(grid, props.textured(b, "cloth"), (wide, 1.9))
    maker.box(
        (-half[0], -half[1] - 0.06, z[-1, 0]),
        (half[0], -half[1] - 0.04, z[-1, 0] + 0.02),
        Surface((0.5, 0.5, 0.5), gloss=0.4),
    )
    b.add("shower curtain", maker.mesh(), move(tub.x, tub.y, 0) @ turn(tub.angle))
