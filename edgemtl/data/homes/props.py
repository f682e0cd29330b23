"""Things that the catalogues lack: books, paper, boxes, clothes, pillows, screens, rugs."""

from __future__ import annotations

import numpy as np

from edgemtl.data.homes.build import Builder
from edgemtl.data.homes.mesh import Colour, Maker, Mesh, Surface, cushion, scaled
from edgemtl.data.homes.patterns import draw
from edgemtl.data.homes.place import Placed, Room
from edgemtl.data.homes.shell import linear, paint
from edgemtl.data.rooms.scene import move, turn

WHITE = (1.0, 1.0, 1.0)


def textured(b: Builder, kind: str, gloss: float = 0.0, dim: float = 1.0) -> Surface:
    """A surface with any picture of a kind, darkened by `dim`."""
    return Surface((dim, dim, dim), draw(kind, b.rng), gloss)


def material(b: Builder) -> Surface:
    """Of a piece of furniture: wood, or paint."""
    if b.chance(0.6):
        return textured(b, "veneer", b.uniform(0, 0.12))
    return Surface(paint(b, 0.08, 0.95, 0.15), gloss=b.uniform(0, 0.1))


def television(b: Builder, wide: float) -> Mesh:
    """A flat screen on a foot; front towards -y."""
    high, maker = wide * 0.6, Maker()
    dark = Surface((0.01, 0.01, 0.012), gloss=0.25)
    shown = (
        Surface(WHITE, draw("screen", b.rng), glow=b.uniform(0.5, 1.6))
        if b.chance(0.3)
        else Surface((0.008, 0.008, 0.01), gloss=0.35)
    )
    maker.box((-wide / 2, -0.03, 0.08), (wide / 2, 0.03, 0.08 + high), dark)
    e = 0.025
    maker.quad(
        (-wide / 2 + e, -0.032, 0.08 + e),
        (wide / 2 - e, -0.032, 0.08 + e),
        (wide / 2 - e, -0.032, 0.08 + high - e),
        (-wide / 2 + e, -0.032, 0.08 + high - e),
        shown,
    )
    maker.box((-wide / 5, -0.1, 0), (wide / 5, 0.1, 0.015), dark)
    maker.box((-0.04, -0.015, 0), (0.04, 0.015, 0.1), dark)
    return maker.mesh()


def on_top(
    b: Builder,
    under: Placed | None,
    name: str,
    mesh: Mesh,
    zone: tuple[float, float, float, float] = (-1, 1, -1, 1),
    angle: float | None = None,
    tries: int = 8,
) -> bool:
    """A mesh of ours on top of an item."""
    if under is None:
        return False
    size = mesh.size
    radius, half = float(max(size[:2])) / 2, under.size[:2] / 2
    inner = np.maximum(half - min(size[:2]) / 2, 0)
    for _ in range(tries):
        x, y = b.uniform(zone[0], zone[1]) * inner[0], b.uniform(zone[2], zone[3]) * inner[1]
        if any(np.hypot(x - u, y - v) < 0.8 * (radius + r) for u, v, r in under.used):
            continue
        z = b.surface_at(under, x, y, float(min(size[:2])) / 2)
        if z is None:
            continue
        under.used.append((x, y, radius * 0.8))
        wx, wy = under.world(x, y)
        facing = under.angle + (b.uniform(-0.4, 0.4) if angle is None else angle)
        b.add(name, mesh, move(float(wx), float(wy), under.z + z + 0.001) @ turn(facing))
        return True
    return False


def book_stack(b: Builder) -> Mesh:
    """Up to six books that lie on each other."""
    maker, z = Maker(), 0.0
    for _ in range(b.integer(1, 6)):
        w, d, h = b.uniform(0.14, 0.24), b.uniform(0.18, 0.3), b.uniform(0.012, 0.05)
        cover = Surface(paint(b, 0.08, 0.9, 0.6), gloss=0.08)
        s = b.uniform(-0.02, 0.02)
        maker.box((-w / 2 + s, -d / 2, z), (w / 2 + s, d / 2, z + h), cover)
        maker.box(
            (-w / 2 + s + 0.004, -d / 2 - 0.001, z + 0.004),
            (w / 2 + s - 0.002, d / 2 - 0.004, z + h - 0.003),
            Surface((0.75, 0.72, 0.62)),
        )
        z += h
    return maker.mesh()


def paper_sheets(b: Builder) -> Mesh:
    """Some printed pages."""
    maker = Maker()
    for k in range(b.integer(1, 4)):
        x, y = b.uniform(-0.06, 0.06), b.uniform(-0.06, 0.06)
        maker.box(
            (x - 0.105, y - 0.148, 0.002 * k), (x + 0.105, y + 0.148, 0.002 * k + 0.002), textured(b, "paper"), 3.4
        )
    return maker.mesh()


def _worn(b: Builder, colour: Colour) -> Colour:
    r, g, c = (part * b.uniform(0.7, 1.1) for part in colour)
    return r, g, c


def carton(b: Builder) -> Mesh:
    """A cardboard or plastic box, with a strip of tape."""
    w, d, h = b.uniform(0.2, 0.6), b.uniform(0.2, 0.45), b.uniform(0.12, 0.45)
    colour = linear(0.68, 0.52, 0.34) if b.chance(0.6) else paint(b, 0.2, 0.95, 0.5)
    maker, side = Maker(), Surface(_worn(b, colour), draw("plaster", b.rng))
    maker.box((-w / 2, -d / 2, 0), (w / 2, d / 2, h), side)
    maker.box((-0.03, -d / 2 - 0.001, 0.6 * h), (0.03, d / 2 + 0.001, h + 0.001), Surface(scaled(colour, 0.75)))
    return maker.mesh()


def heap(b: Builder, size: float) -> Mesh:
    """A heap of clothes: a sheet in folds."""
    n = 22
    x, y = np.meshgrid(np.linspace(-1, 1, n), np.linspace(-1, 1, n))
    r = np.hypot(x, y)
    bumps = sum(
        b.uniform(0.1, 0.35) * np.sin(b.uniform(2, 9) * x + b.uniform(2, 9) * y + b.uniform(0, 6)) for _ in range(4)
    )
    z = np.clip(1 - r**2, 0, 1) * (0.55 + 0.5 * bumps)
    grid = np.stack([x * size / 2, y * size / 2 * b.uniform(0.6, 1), np.maximum(z, 0) * size * 0.3 + 0.004], -1)
    maker = Maker()
    maker.sheet(grid, textured(b, "cloth"), (1.5, 1.5))
    return maker.mesh()


def computer(b: Builder) -> tuple[Mesh, Mesh]:
    """Monitor and keyboard."""
    screen = television(b, b.uniform(0.38, 0.62))
    maker, keys = Maker(), Surface(paint(b, 0.04, 0.8, 0.0))
    maker.box((-0.22, -0.07, 0), (0.22, 0.07, 0.02), keys)
    maker.box((-0.21, -0.06, 0.02), (0.21, 0.06, 0.028), Surface(scaled(keys.colour, 0.6), draw("tiles", b.rng)), 4)
    return screen, maker.mesh()


def pillows(b: Builder, under: Placed, low: int, high: int, back: bool = True) -> None:
    """Pillows on a bed or cushions on a sofa."""
    same = textured(b, "cloth")
    for _ in range(b.integer(low, high)):
        w, d, h = b.uniform(0.35, 0.65), b.uniform(0.3, 0.45), b.uniform(0.1, 0.18)
        mesh = cushion(w, d, h, same if b.chance(0.6) else textured(b, "cloth"))
        on_top(
            b, under, "pillow", mesh, (-0.9, 0.9, 0.45, 0.95) if back else (-0.9, 0.9, -0.3, 0.5), b.uniform(-0.2, 0.2)
        )


def blanket(b: Builder, under: Placed) -> None:
    """A folded blanket or clothes on a bed or a sofa."""
    mesh = (
        cushion(b.uniform(0.3, 0.6), b.uniform(0.25, 0.5), b.uniform(0.05, 0.1), textured(b, "cloth"))
        if b.chance(0.4)
        else heap(b, b.uniform(0.35, 0.8))
    )
    on_top(b, under, "clothes", mesh, (-0.9, 0.9, -0.9, 0.6))


def rug(b: Builder, room: Room, x: float, y: float, angle: float, wide: float, deep: float) -> None:
    """A rug under things; it does not take floor."""
    c, s = abs(np.cos(angle)), abs(np.sin(angle))
    hx, hy = (wide * c + deep * s) / 2, (wide * s + deep * c) / 2
    x, y = (
        np.clip(x, room.x0 + hx + 0.03, max(room.x0 + hx + 0.03, room.x1 - hx - 0.03)),
        np.clip(y, room.y0 + hy + 0.03, max(room.y0 + hy + 0.03, room.y1 - hy - 0.03)),
    )
    if x + hx > room.x1 or y + hy > room.y1:
        return
    maker = Maker()
    maker.quad(
        (-wide / 2, -deep / 2, 0.008),
        (wide / 2, -deep / 2, 0.008),
        (wide / 2, deep / 2, 0.008),
        (-wide / 2, deep / 2, 0.008),
        textured(b, "rug"),
    )
    b.add("floor mat", maker.mesh(), move(float(x), float(y), b.uniform(0, 0.002)) @ turn(angle))
