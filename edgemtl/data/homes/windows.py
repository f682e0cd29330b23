"""Windows with daylight, blinds and curtains; lights on the ceiling."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgemtl.data.homes.build import Builder
from edgemtl.data.homes.light import Light
from edgemtl.data.homes.mesh import Maker, Mesh, Surface, scaled
from edgemtl.data.homes.patterns import draw
from edgemtl.data.homes.place import Gap, Room, Wall
from edgemtl.data.homes.shell import WET, on_wall, paint
from edgemtl.data.rooms.scene import move, turn


def windows(b: Builder, room: Room, number: int, day: float) -> None:
    """Fill the windows; `day` is the daylight, 0 at night."""
    sky = Surface((1.0, 1.0, 1.0), draw("outside", b.rng), glow=max(0.03, day * float(np.exp(b.uniform(0.0, 2.6)))))
    for wall in room.walls:
        for gap in (g for g in wall.gaps if g.kind == "window"):
            b.instances += 1
            instance = b.instances
            wide, high = gap.b - gap.a, gap.high - gap.low
            found = b.model("window", (wide + 0.6, 0.4)) if b.chance(0.3) else None
            at = on_wall(wall, gap.a, gap.low)
            maker = Maker()
            if sky.glow < 0.1:
                sky = Surface((0.02, 0.025, 0.04), gloss=0.3)
            maker.quad((wide, 0.008, 0), (0, 0.008, 0), (0, 0.008, high), (wide, 0.008, high), sky)
            if found is None:
                frame = Surface(paint(b, 0.5, 0.97, 0.1), gloss=0.05)
                if b.chance(0.25):
                    frame = Surface((1.0, 1.0, 1.0), draw("veneer", b.rng))
                bars_x, bars_z = b.integer(0, 3), b.integer(0, 2)
                thick = b.uniform(0.02, 0.05)
                for k in range(bars_x + 2):
                    x = wide * k / (bars_x + 1)
                    t = thick if k in (0, bars_x + 1) else thick * 0.6
                    maker.box((x - t, 0, 0), (x + t, 0.04, high), frame)
                for k in range(bars_z + 2):
                    z = high * k / (bars_z + 1)
                    t = thick if k in (0, bars_z + 1) else thick * 0.6
                    maker.box((0, 0, z - t), (wide, 0.04, z + t), frame)
                maker.box((-0.06, 0, -0.04), (wide + 0.06, b.uniform(0.05, 0.14), 0), frame)
            b.add("window", maker.mesh(), at, instance=instance)
            if found is not None:
                entry, mesh = found
                x, y = wall.point((gap.a + gap.b) / 2, 0.02)
                scale = np.diag([wide / entry.size[0], 0.3, high / entry.size[2], 1.0])
                b.add(
                    "window",
                    mesh,
                    move(float(x), float(y), gap.low) @ turn(wall.angle) @ scale,
                    b.tint(0.05),
                    entry.id,
                    instance,
                )
            open_share = _cover(b, room, wall, gap)
            if day > 0:
                x, y = wall.point((gap.a + gap.b) / 2, 0.06)
                side = wall.along * wide / 2
                power = day * wide * high * b.uniform(1.2, 2.4) * (0.25 + 0.75 * open_share)
                b.lights.append(
                    Light((float(x), float(y), gap.low + high / 2), (power * 0.95, power, power * 1.08),
                          (float(wall.inward[0]), float(wall.inward[1]), 0.0), (float(side[0]), float(side[1]), 0.0),
                          (0.0, 0.0, high / 2), 0.12, number)
                )  # fmt: skip


def _cover(b: Builder, room: Room, wall: Wall, gap: Gap) -> float:
    """Blinds or curtains before a window; returns the share of it that stays open."""
    wide, high = gap.b - gap.a, gap.high - gap.low
    share = 1.0
    if b.chance(0.42):
        drop = high * (b.uniform(0.15, 1.0) if b.chance(0.5) else 1.0)
        maker, slat = Maker(), Surface(paint(b, 0.6, 0.97, 0.12), gloss=0.05)
        if b.chance(0.35):  # a roller blind, or a pleated one
            maker.box((-0.03, 0.045, high - drop), (wide + 0.03, 0.06, high), Surface((1, 1, 1), draw("cloth", b.rng)))
            share = 1 - drop / high
        else:
            step, tilt = b.uniform(0.025, 0.06), b.uniform(0.15, 1.1)
            reach = step * 0.55
            for z in np.arange(high - drop, high, step):
                dy, dz = reach * np.cos(tilt), reach * np.sin(tilt)
                maker.quad(
                    (-0.02, 0.075 - dy, z - dz),
                    (wide + 0.02, 0.075 - dy, z - dz),
                    (wide + 0.02, 0.075 + dy, z + dz),
                    (-0.02, 0.075 + dy, z + dz),
                    slat,
                    1.0,
                )
            maker.box((-0.03, 0.045, high - 0.03), (wide + 0.03, 0.11, high + 0.03), slat)
            share = 1 - drop / high * min(1.0, np.sin(tilt) * 1.1)
        b.add("blinds", maker.mesh(), on_wall(wall, gap.a, gap.low))
    if b.chance(0.42 if room.kind != "bathroom" else 0.2):
        closed = b.uniform(0.15, 0.4) if b.chance(0.8) else 0.53
        low = 0.03 if b.chance(0.6) else gap.low - 0.15
        top = min(gap.high + b.uniform(0.05, 0.2), room.height - 0.03)
        cloth = Surface((1.0, 1.0, 1.0), draw("cloth", b.rng))
        extra = b.uniform(0.05, 0.3)
        left, right = max(0.02, gap.a - extra), min(wall.length - 0.02, gap.b + extra)
        for side in (0, 1) if b.chance(0.85) else (0,):
            width = (right - left) * closed
            start = left if side == 0 else right - width
            folds, amplitude = max(2, round(width / b.uniform(0.1, 0.2))), b.uniform(0.02, 0.04)
            t = np.linspace(0, 1, folds * 8 + 1)
            z = np.linspace(low, top, 5)[:, None]
            swing = amplitude * np.sin(2 * np.pi * folds * t)[None] * (1.2 - 0.4 * (z - low) / (top - low))
            grid = np.stack([width * t[None] + 0 * z, 0.13 + swing, z + 0 * t[None]], -1)
            maker = Maker()
            maker.sheet(grid, cloth, (width * 1.2, (top - low)))
            b.add("curtain", maker.mesh(), on_wall(wall, start, 0))
        rod = Maker()
        rod.box((left - 0.1, 0.12, top), (right + 0.1, 0.14, top + 0.02), Surface((0.2, 0.18, 0.15), gloss=0.3))
        b.add("curtain", rod.mesh(), on_wall(wall, 0, 0))
        b.hang(room, wall, left, right, low, top)
        share *= max(0.2, 1 - closed)
    else:
        b.hang(room, wall, gap.a, gap.b, gap.low, gap.high)
    return share


def ceiling_lights(b: Builder, room: Room, number: int, day: float) -> None:
    """A panel, strips or a hanging lamp; off now and then by day."""
    x, y = (room.x0 + room.x1) / 2 + b.uniform(-0.3, 0.3), (room.y0 + room.y1) / 2 + b.uniform(-0.3, 0.3)
    warm = b.uniform(0.0, 1.0)
    colour = (1.0, 0.9 - 0.16 * warm, 0.8 - 0.42 * warm)
    on = day < 0.25 or b.chance(0.6)
    area = (room.x1 - room.x0) * (room.y1 - room.y0)
    power = (1.3 + 0.16 * area) * b.uniform(0.6, 1.5)
    # some light always comes from above, so that a room by day is not lit from one side only
    level = power if on else power * 0.12
    h = room.height
    tint = scaled(colour, level)
    if room.kind in ("office", "class") and b.chance(0.7):
        maker = Maker()
        glass = Surface((1.0, 1.0, 1.0), glow=2.0 if on else 0.0)
        count = max(1, round(area / 9))
        for k in range(count):
            px = room.x0 + (room.x1 - room.x0) * (k + 0.5) / count
            maker.box((px - 0.3, y - 0.6, h - 0.03), (px + 0.3, y + 0.6, h - 0.001), glass)
            b.lights.append(
                Light(
                    (px, y, h - 0.05),
                    scaled(tint, 1.3 / count),
                    (0, 0, -1),
                    (0.3, 0, 0),
                    (0, 0.6, 0),
                    0.1,
                    number,
                )
            )
        b.add("lamp", maker.mesh(), np.eye(4))
        return
    found = b.model("pendant") if b.chance(0.45) and room.kind not in WET else b.model("ceiling lamp")
    drop = 0.1
    if found is not None and b.chance(0.75):
        entry, mesh = found
        drop = min(entry.size[2], h - 1.75)
        scale = drop / entry.size[2] if entry.size[2] > drop else 1.0
        at = move(x, y, h - entry.size[2] * scale) @ np.diag([scale, scale, scale, 1.0])
        b.add("lamp", glowing(mesh, 1.2 if on else 0.0), at, (1, 1, 1), entry.id)
    b.lights.append(Light((x, y, h - max(drop, 0.1) * 0.8), tint, None, (0.12, 0, 0), (0, 0, 0), 0.45, number))


def glowing(mesh: Mesh, glow: float) -> Mesh:
    """The mesh with its light surfaces lit, in a colour near that of a bulb."""

    def lit_one(s: Surface) -> Surface:
        red, green, blue = s.colour
        return replace(s, glow=glow, colour=(0.3 * red + 0.65, 0.3 * green + 0.55, 0.3 * blue + 0.4))

    lit = tuple(lit_one(s) if max(s.colour) > 0.3 and glow > 0 else s for s in mesh.surfaces)
    return replace(mesh, surfaces=lit)
