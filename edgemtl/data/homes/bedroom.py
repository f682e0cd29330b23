"""Bedrooms: a bed with what stands beside and lies on it, a dresser, clothes."""

from __future__ import annotations

import numpy as np

from edgemtl.data.homes import hangings, props, storage
from edgemtl.data.homes.build import Builder
from edgemtl.data.homes.clutter import floor_heap
from edgemtl.data.homes.place import Placed, Room
from edgemtl.data.homes.tables import table_clutter, table_lamp, work_place
from edgemtl.data.rooms.scene import Footprint, move, turn


def bedroom(b: Builder, room: Room, number: int, day: float) -> None:
    """A bed with what stands beside it, a dresser, wardrobes, clothes, shoes."""
    bed = b.against(room, "bed" if b.chance(0.92) else "crib", front=0.3)
    if bed is not None:
        props.pillows(b, bed, 1, 5)
        for _ in range(b.integer(0, 2)):
            props.blanket(b, bed)
        if b.chance(0.3):
            b.scatter(bed, "small bed", 1, 3)
        if b.chance(0.25):
            b.scatter(bed, "clothes", 1, 2)
        for sign in (-1, 1):
            if not b.chance(0.75):
                continue
            s = np.array([np.cos(bed.angle), np.sin(bed.angle)]) * sign
            back = np.array([-np.sin(bed.angle), np.cos(bed.angle)])
            wide = b.uniform(0.4, 0.6)
            found = b.model("nightstand") if b.chance(0.4) else None
            deep = found[0].size[1] if found else b.uniform(0.35, 0.45)
            p = np.array([bed.x, bed.y]) + s * (bed.size[0] / 2 + wide / 2 + 0.05) + back * (bed.size[1] / 2 - deep / 2)
            x, y = float(p[0]), float(p[1])
            footprint = Footprint(x, y, wide / 2, deep / 2, bed.angle)
            if not b.free(room, footprint):
                continue
            if found:
                night = b.stand(found, x, y, bed.angle)
            else:
                mesh = storage.cabinet(b, wide, deep, b.uniform(0.45, 0.65), True)
                b.add("night stand", mesh, move(x, y, 0) @ turn(bed.angle))
                b.footprints.append(footprint)
                night = Placed(mesh, x, y, 0, bed.angle, footprint)
            if b.chance(0.75):
                table_lamp(b, night, number, day)
            if b.chance(0.5):
                props.on_top(b, night, "books", props.book_stack(b))
            b.scatter(night, "small bed", 0, 2)
        if b.chance(0.4):
            props.rug(
                b,
                room,
                bed.x + b.uniform(-1, 1),
                bed.y + b.uniform(-1, 1),
                bed.angle,
                b.uniform(1.4, 2.4),
                b.uniform(1, 1.8),
            )
        if b.chance(0.6):
            hangings.hang_on_wall(
                b,
                room,
                "picture",
                b.uniform(0.4, 1.1),
                b.uniform(0.35, 0.6),
                1.5,
                props.textured(b, "art"),
                0.03,
                0.03,
                bed,
            )
    if b.chance(0.75):
        dresser = storage.piece(
            b, room, "dresser", b.uniform(0.7, 1.6), b.uniform(0.4, 0.52), b.uniform(0.75, 1.25), True, 0.5
        )
        if dresser is None or b.chance(0.2):
            dresser = b.against(room, "dresser", 0.4) or dresser
        if dresser is not None:
            if b.chance(0.55):
                hangings.mirror(b, room, dresser, dresser.size[2] + 0.1)
            elif b.chance(0.5):
                props.on_top(
                    b, dresser, "television", props.television(b, b.uniform(0.45, 0.8)), (-0.4, 0.4, -0.3, 0.3), 0.0
                )
            b.scatter(dresser, "small bed", 0, 3)
            b.scatter(dresser, "small living", 0, 3)
            table_clutter(b, dresser)
            if b.chance(0.4):
                table_lamp(b, dresser, number, day)
    if b.chance(0.55):
        if b.chance(0.5):
            b.against(room, "wardrobe", 0.4)
        else:
            storage.piece(b, room, "cabinet", b.uniform(0.8, 2.0), b.uniform(0.5, 0.62), b.uniform(1.8, 2.2), front=0.4)
    if b.chance(0.35):
        work_place(b, room, number, day)
    if b.chance(0.4):
        storage.shelves(b, room, "bookshelf" if b.chance(0.5) else "shelves", b.uniform(0.3, 0.8))
    if b.chance(0.25):
        b.against(room, "rack")
    if b.chance(0.3):
        b.somewhere(room, "armchair" if b.chance(0.5) else "chair")
    for _ in range(b.integer(0, 3)):
        b.somewhere(room, "shoes" if b.chance(0.5) else "toy")
    floor_heap(b, room)
