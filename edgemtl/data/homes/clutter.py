"""What fills any room: more furniture along the walls, plants, bags, boxes, radiators, people, pets."""

from __future__ import annotations

from edgemtl.data.homes import hangings, props, storage
from edgemtl.data.homes.build import Builder
from edgemtl.data.homes.place import Room
from edgemtl.data.homes.tables import things_on, work_place
from edgemtl.data.rooms.scene import Footprint, move, turn


def fill(b: Builder, room: Room, number: int, day: float, share: float) -> None:
    """More furniture along the walls and chairs in between, until a share of the floor is taken."""
    area = (room.x1 - room.x0) * (room.y1 - room.y0)
    for _ in range(14):
        taken = sum(
            4 * f.half_x * f.half_y
            for f in b.footprints
            if room.x0 < f.x < room.x1 and room.y0 < f.y < room.y1 and f.solid
        )
        if taken > share * area:
            return
        roll = b.uniform(0, 1)
        if roll < 0.2:
            top = storage.piece(
                b, room, "cabinet", b.uniform(0.5, 1.8), b.uniform(0.35, 0.55), b.uniform(0.6, 2.1), front=0.1
            )
            things_on(b, top, number, day)
        elif roll < 0.32:
            top = storage.piece(
                b, room, "dresser", b.uniform(0.7, 1.4), b.uniform(0.4, 0.5), b.uniform(0.7, 1.2), True, 0.1
            )
            things_on(b, top, number, day)
        elif roll < 0.47:
            shelf = storage.shelves(b, room, "bookshelf" if b.chance(0.6) else "shelves", b.uniform(0.2, 0.95))
            things_on(b, shelf, number, day)
        elif roll < 0.55:
            things_on(b, b.against(room, "bookcase"), number, day)
        elif roll < 0.65:
            work_place(b, room, number, day)
        elif roll < 0.75:
            side = b.against(room, "side" if b.chance(0.5) else "coffee", corner=b.chance(0.5))
            things_on(b, side, number, day)
        elif roll < 0.86:
            seat_ = b.somewhere(room, "chair" if b.chance(0.6) else "armchair", turned=b.chance(0.5))
            if seat_ is not None and b.chance(0.25):
                props.blanket(b, seat_)
        elif roll < 0.95:
            b.against(room, "sofa", fits=(2.2, 1))
        else:
            b.against(room, "plant", corner=True)


def floor_heap(b: Builder, room: Room) -> None:
    """Now and then, clothes on the floor."""
    if b.chance(0.35):
        size = b.uniform(0.35, 0.8)
        x, y = b.uniform(room.x0 + 0.4, room.x1 - 0.4), b.uniform(room.y0 + 0.4, room.y1 - 0.4)
        footprint = Footprint(x, y, size / 2, size / 2, 0.0, False)
        if b.free(room, footprint):
            b.add("clothes", props.heap(b, size), move(x, y, 0))
            b.footprints.append(footprint)


def clutter(b: Builder, room: Room, number: int, day: float) -> None:
    """What any room has: pictures, plants, bags, boxes, bins, radiators, people."""
    bath = room.kind == "bathroom"
    if not bath:
        fill(b, room, number, day, b.uniform(0.25, 0.5))
    hangings.pictures(b, room, 0, 2 if bath else 6)
    if b.chance(0.25):
        storage.wall_shelf(b, room)
    if b.chance(0.12):
        hangings.mirror(b, room)
    for role, chance, most in (
        ("plant", 0.4, 2),
        ("bag", 0.3, 2),
        ("bin", 0.4, 1),
        ("box", 0.18, 2),
        ("broom", 0.12, 1),
        ("person", 0.07, 2),
        ("pet", 0.04, 1),
        ("bench", 0.1, 1),
        ("mat", 0.06, 1),
        ("big", 0.05, 1),
    ):
        if b.chance(chance * (0.3 if bath and role != "bin" else 1)):
            for _ in range(b.integer(1, most)):
                if role in ("plant", "bin", "broom", "box") and b.chance(0.7):
                    b.against(room, role, corner=True)
                else:
                    b.somewhere(room, role)
    for _ in range(b.integer(0, 2) if b.chance(0.4) else 0):
        mesh = props.carton(b)
        size = mesh.size
        x, y, angle = b.uniform(room.x0, room.x1), b.uniform(room.y0, room.y1), b.uniform(-3, 3)
        footprint = Footprint(x, y, size[0] / 2, size[1] / 2, angle)
        if b.free(room, footprint):
            b.add("box", mesh, move(x, y, 0) @ turn(angle))
            b.footprints.append(footprint)
    if b.chance(0.25):
        found = b.model("radiator" if b.chance(0.8) else "radiator wall", (1.5, 0.3))
        if found is not None:
            entry = found[0]
            spot = b.wall_spot(room, entry.size[0], entry.size[1], min(entry.size[2], 0.7))
            if spot is not None:
                b.stand(found, spot[2], spot[3], spot[4], tint=(1, 1, 1))
    for role, chance in (("wall thing", 0.08), ("wall high", 0.08), ("wall lamp", 0.12)):
        found = b.model(role, (1.1, 0.5)) if b.chance(chance) else None
        if found is not None:
            entry, mesh = found
            low = min(max(entry.elevation, 1.5), room.height - entry.size[2] - 0.05)
            spot = b.wall_spot(room, entry.size[0], entry.size[1], entry.size[2], low=low)
            if spot is not None:
                wall, at, x, y, angle = spot
                b.hang(room, wall, at - entry.size[0] / 2, at + entry.size[0] / 2, low, low + entry.size[2])
                b.stand(found, x, y, angle, low)
