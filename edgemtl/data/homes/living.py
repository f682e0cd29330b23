"""Living rooms and dining rooms."""

from __future__ import annotations

import numpy as np

from edgemtl.data.homes import hangings, props, storage
from edgemtl.data.homes.build import Builder
from edgemtl.data.homes.place import Placed, Room
from edgemtl.data.homes.tables import dining_table, floor_lamp, table_clutter, table_lamp
from edgemtl.data.rooms.scene import Footprint


def living(b: Builder, room: Room, number: int, day: float) -> None:
    """A sofa with a table, seats and a television opposite; shelves, cabinets, lamps."""
    role = "corner sofa" if b.chance(0.2) else "sofa"
    sofa = b.against(room, role, front=1.3, fits=(4, 4))
    if sofa is None:
        sofa = b.against(room, "sofa", front=0.6)
    if sofa is not None:
        props.pillows(b, sofa, 0, 5, back=False)
        if b.chance(0.35):
            props.blanket(b, sofa)
        ahead = np.array([np.sin(sofa.angle), -np.cos(sofa.angle)])
        c = np.array([sofa.x, sofa.y]) + ahead * (sofa.size[1] / 2 + b.uniform(0.55, 0.75))
        if b.chance(0.55):
            props.rug(b, room, float(c[0]), float(c[1]), sofa.angle, b.uniform(1.6, 2.8), b.uniform(1.2, 2.0))
        found = b.model("coffee" if b.chance(0.8) else "side", (1.6, 0.9))
        if found is not None and b.chance(0.85):
            entry = found[0]
            if b.free(room, Footprint(float(c[0]), float(c[1]), entry.size[0] / 2, entry.size[1] / 2, sofa.angle)):
                table = b.stand(found, float(c[0]), float(c[1]), sofa.angle)
                b.scatter(table, "small living", 1, 5)
                table_clutter(b, table)
        for sign in (-1, 1):
            if b.chance(0.45):
                s = np.array([np.cos(sofa.angle), np.sin(sofa.angle)]) * sign
                p = np.array([sofa.x, sofa.y]) + s * (sofa.size[0] / 2 + 0.32)
                found = b.model("side", (0.6, 0.6))
                if found and b.free(room, Footprint(float(p[0]), float(p[1]), 0.3, 0.3, sofa.angle)):
                    side = b.stand(found, float(p[0]), float(p[1]), sofa.angle)
                    table_lamp(b, side, number, day)
        for _ in range(b.integer(0, 2)):
            seat(b, room, c)
        tv_corner(b, room, opposite(room, sofa))
        if b.chance(0.5):
            hangings.hang_on_wall(
                b,
                room,
                "picture",
                b.uniform(0.5, 1.2),
                b.uniform(0.4, 0.7),
                1.3,
                props.textured(b, "art"),
                0.04,
                0.03,
                sofa,
            )
    for _ in range(b.integer(0, 2)):
        storage.shelves(b, room)
    if b.chance(0.3):
        b.against(room, "fireplace")
    if b.chance(0.4):
        thing = b.against(room, "bookcase")
        b.scatter(thing, "small living", 0, 4)
    if b.chance(0.5):
        top = storage.piece(
            b,
            room,
            "cabinet" if b.chance(0.6) else "dresser",
            b.uniform(0.7, 1.6),
            b.uniform(0.35, 0.5),
            b.uniform(0.7, 1.0),
        )
        b.scatter(top, "small living", 1, 5)
        table_lamp(b, top, number, day)
    if b.chance(0.12):
        b.somewhere(room, "piano", turned=False)
    if b.chance(0.25):
        b.against(room, "sideboard")
    if b.chance(0.5):
        floor_lamp(b, room, number, day)


def seat(b: Builder, room: Room, towards: np.ndarray) -> None:
    """An armchair that looks at a point."""
    found = b.model("armchair", (1.3, 1.3))
    if found is None:
        return
    for _ in range(15):
        way = b.uniform(-np.pi, np.pi)
        r = b.uniform(1.0, 1.9)
        x, y = towards[0] + r * np.cos(way), towards[1] + r * np.sin(way)
        angle = float(np.arctan2(towards[0] - x, -(towards[1] - y))) + b.uniform(-0.3, 0.3)
        if b.free(room, Footprint(x, y, found[0].size[0] / 2, found[0].size[1] / 2, angle)):
            placed = b.stand(found, x, y, angle)
            if b.chance(0.35):
                props.pillows(b, placed, 1, 1, back=False)
            return


def opposite(room: Room, item: Placed) -> list[int]:
    """Numbers of the walls that an item looks at: the one ahead twice, so that it is taken more often."""
    ahead = np.array([np.sin(item.angle), -np.cos(item.angle)])
    facing = [float(w.inward @ ahead) for w in room.walls]
    first = int(np.argmin(facing))
    return [first, first, first, (first + 1) % 4, (first + 3) % 4]


def tv_corner(b: Builder, room: Room, walls: list[int]) -> None:
    """A low cabinet with a television, against one of some walls."""
    wide = b.uniform(0.9, 1.7)
    if b.chance(0.4):
        stand = b.against(room, "tv stand", front=0.4, walls=walls)
    else:
        spot = b.wall_spot(room, wide, 0.45, 0.6, 0.4, walls=walls)
        stand = None
        if spot is not None:
            mesh = storage.cabinet(b, wide, 0.42, b.uniform(0.35, 0.75))
            stand = storage.stand_unit(b, room, spot, "cabinet" if b.chance(0.5) else "otherfurniture", mesh, high=1.3)
    if stand is None:
        return
    if b.chance(0.85):
        found = b.model("tv", (1.2, 0.6))
        if found is not None and b.chance(0.3) and found[0].elevation < 0.1:
            b.put(stand, found, angle=0.0, zone=(-0.3, 0.3, -0.2, 0.6))
        else:
            props.on_top(
                b,
                stand,
                "television",
                props.television(b, min(b.uniform(0.6, 1.2), stand.size[0])),
                (-0.4, 0.4, 0, 0.4),
                0.0,
            )
    b.scatter(stand, "small living", 0, 4)


def dining(b: Builder, room: Room, number: int, day: float) -> None:
    """A table with chairs, a sideboard, a rug."""
    table = dining_table(b, room)
    if b.chance(0.7):
        side = storage.piece(
            b, room, "cabinet", b.uniform(0.9, 1.9), b.uniform(0.4, 0.5), b.uniform(0.8, 1.0), front=0.3
        )
        b.scatter(side, "small living", 1, 5)
        table_lamp(b, side, number, day)
        if b.chance(0.4) and side is not None:
            hangings.mirror(b, room, side, side.size[2] + 0.15)
    if b.chance(0.4):
        b.against(room, "bookcase")
    if b.chance(0.3):
        storage.piece(b, room, "cabinet", b.uniform(0.8, 1.3), 0.42, b.uniform(1.7, 2.1))
    if table is not None and b.chance(0.4):
        props.rug(b, room, table.x, table.y, table.angle, table.size[0] + 1.2, table.size[1] + 1.2)
