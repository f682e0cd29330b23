"""Tables and desks with what stands around and on them."""

from __future__ import annotations

import numpy as np

from edgemtl.data.homes import props
from edgemtl.data.homes.build import Builder
from edgemtl.data.homes.light import Light
from edgemtl.data.homes.place import Placed, Room
from edgemtl.data.homes.windows import glowing
from edgemtl.data.rooms.scene import Footprint


def chairs_around(b: Builder, room: Room, table: Placed, role: str, most: int, pull: float = 0.0) -> None:
    """Alike chairs that face a table, where there is floor for them."""
    found = b.model(role, (0.75, 0.9))
    if found is None:
        return
    entry, _ = found
    tint = b.tint()
    half = table.size[:2] / 2
    places: list[tuple[float, float, float]] = []
    for sign in (-1, 1):
        across = max(1, int(2 * half[0] / (entry.size[0] + 0.12)))
        for k in range(across):
            x = (k + 0.5) / across * 2 * half[0] - half[0]
            places.append((x, sign * half[1], 0.0 if sign > 0 else np.pi))
        if half[0] > 0.35 and b.chance(0.6):
            places.append((sign * half[0], 0.0, -np.pi / 2 if sign > 0 else np.pi / 2))
    b.rng.shuffle(places)
    for x, y, turned in places[:most]:
        # the chair's front (-y) looks at the table; its seat goes a little under it
        off = b.uniform(-0.12, 0.2) + pull + entry.size[1] / 2 - 0.1
        out = np.array([-np.sin(turned), np.cos(turned)])
        cx, cy = table.world(x + out[0] * off, y + out[1] * off)
        angle = table.angle + turned + b.uniform(-0.25, 0.25)
        # the part under the table is allowed to overlap it: test the rear half only
        rear = np.array([-np.sin(table.angle + turned), np.cos(table.angle + turned)]) * (
            entry.size[1] / 2 - 0.1 + min(0.0, off - entry.size[1] / 2 + 0.1)
        )
        test = Footprint(
            float(cx + rear[0] * 0.5), float(cy + rear[1] * 0.5), entry.size[0] / 2, entry.size[1] / 4, angle
        )
        whole = Footprint(float(cx), float(cy), entry.size[0] / 2, entry.size[1] / 2, angle)
        others = [f for f in b.footprints if f is not table.footprint]
        if (
            not room.holds(whole)
            or any(whole.overlaps(f) for f in others)
            or test.overlaps(Footprint(table.x, table.y, half[0] - 0.08, half[1] - 0.08, table.angle))
        ):
            continue
        b.stand(found, float(cx), float(cy), angle, tint=tint)


def table_lamp(b: Builder, under: Placed | None, number: int, day: float) -> None:
    """A lamp on top of an item, lit or not."""
    found = b.model("lamp", (0.45, 0.6))
    if under is None or found is None or found[0].size[2] > 0.85:
        return
    lit = b.chance(0.7 if day < 0.3 else 0.3)
    entry, mesh = found
    placed = b.put(under, (entry, glowing(mesh, b.uniform(0.8, 2.0) if lit else 0)), tint=(1, 1, 1))
    if placed is not None and lit:
        lamp(b, placed.x, placed.y, placed.z + 0.72 * entry.size[2], number, 0.55)


def lamp(b: Builder, x: float, y: float, z: float, number: int, power: float) -> None:
    """The light of a lamp at a point."""
    p = power * b.uniform(0.5, 1.4)
    b.lights.append(Light((x, y, z), (p, p * 0.78, p * 0.5), None, (0.08, 0, 0), (0, 0, 0), 0.28, number))


def floor_lamp(b: Builder, room: Room, number: int, day: float) -> None:
    """A tall lamp in a corner, lit or not."""
    tall = [e for e in b.roles.get("lamp", []) if e.size[2] > 1.2]
    if not tall:
        return
    entry = tall[int(b.rng.integers(len(tall)))]
    mesh = b.models.get(entry)
    spot = b.wall_spot(room, entry.size[0] + 0.1, entry.size[1] + 0.1, entry.size[2], corner=True)
    if mesh is None or spot is None:
        return
    lit = b.chance(0.6 if day < 0.3 else 0.25)
    b.stand((entry, glowing(mesh, 1.2 if lit else 0)), spot[2], spot[3], spot[4])
    if lit:
        lamp(b, spot[2], spot[3], 1.3, number, 0.9)


def table_clutter(b: Builder, table: Placed | None) -> None:
    """Books, paper, boxes or cloth on top of an item."""
    for _ in range(b.integer(0, 3)):
        if b.chance(0.5):
            props.on_top(b, table, "books", props.book_stack(b))
        elif b.chance(0.6):
            props.on_top(b, table, "paper", props.paper_sheets(b), angle=b.uniform(-3, 3))
        else:
            props.on_top(
                b,
                table,
                "box" if b.chance(0.4) else "clothes",
                props.carton(b) if b.chance(0.4) else props.heap(b, 0.3),
            )


def work_place(b: Builder, room: Room, number: int, day: float, walls: list[int] | None = None) -> Placed | None:
    """A desk with a chair, a computer and papers."""
    desk = b.against(room, "desk", front=0.7, fits=(2.0, 1.0), walls=walls)
    if desk is None:
        return None
    screen, keys = props.computer(b)
    if b.chance(0.75):
        name = "otherprop" if b.chance(0.8) else "television"
        stands = props.on_top(b, desk, name, screen, (-0.6, 0.6, 0.2, 0.8), b.uniform(-0.3, 0.3))
        if stands:
            props.on_top(b, desk, "otherprop", keys, (-0.5, 0.5, -0.9, -0.3), 0.0)
    b.scatter(desk, "small desk", 1, 6)
    for _ in range(b.integer(0, 4)):
        props.on_top(b, desk, "paper", props.paper_sheets(b), angle=b.uniform(-0.6, 0.6))
    for _ in range(b.integer(0, 3)):
        props.on_top(b, desk, "books", props.book_stack(b))
    if b.chance(0.35):
        table_lamp(b, desk, number, day)
    ahead = np.array([np.sin(desk.angle), -np.cos(desk.angle)])
    found = b.model("desk chair" if b.chance(0.75) else "chair", (0.75, 0.75))
    if found is not None and b.chance(0.9):
        p = np.array([desk.x, desk.y]) + ahead * (desk.size[1] / 2 + b.uniform(0.3, 0.5))
        p += np.array([np.cos(desk.angle), np.sin(desk.angle)]) * b.uniform(-0.25, 0.25)
        angle = desk.angle + np.pi + b.uniform(-0.8, 0.8)
        half = found[0].size[0] / 2 - 0.06, found[0].size[1] / 2 - 0.06
        if b.free(room, Footprint(float(p[0]), float(p[1]), *half, angle)):
            b.stand(found, float(p[0]), float(p[1]), angle)
    return desk


def dining_table(b: Builder, room: Room) -> Placed | None:
    """A table in the open with chairs around it and things on it."""
    table = b.somewhere(room, "table", gap=b.uniform(0.35, 0.7), turned=False, fits=(2.4, 1.3))
    if table is None:
        return None
    chairs_around(b, room, table, "chair", b.integer(2, 8))
    b.scatter(table, "small dining", 1, 8)
    if b.chance(0.5):
        b.scatter(table, "small living", 0, 2, (-0.3, 0.3, -0.3, 0.3))
    table_clutter(b, table)
    return table


def things_on(b: Builder, top: Placed | None, number: int, day: float) -> None:
    """Clutter on a piece of furniture that is not too tall."""
    if top is None or top.size[2] > 1.6:
        return
    b.scatter(top, "small living" if b.chance(0.6) else "small desk", 0, 5)
    for _ in range(b.integer(0, 2)):
        table_clutter(b, top)
    if b.chance(0.2):
        table_lamp(b, top, number, day)
    if b.chance(0.12):
        props.on_top(
            b, top, "television", props.television(b, b.uniform(0.4, 0.7)), (-0.4, 0.4, -0.3, 0.4), b.uniform(-0.3, 0.3)
        )
