"""A furnished home from a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgemtl.data.homes import shell, windows
from edgemtl.data.homes.bathroom import bathroom
from edgemtl.data.homes.bedroom import bedroom
from edgemtl.data.homes.build import Builder
from edgemtl.data.homes.catalogue import Catalogue
from edgemtl.data.homes.clutter import clutter
from edgemtl.data.homes.kitchen import kitchen
from edgemtl.data.homes.light import Light
from edgemtl.data.homes.living import dining, living
from edgemtl.data.homes.model import Models
from edgemtl.data.homes.place import Room
from edgemtl.data.homes.trace import Item
from edgemtl.data.homes.work import class_room, gym, office
from edgemtl.data.rooms.scene import Footprint

KINDS = {
    "living": 0.24,
    "bedroom": 0.25,
    "kitchen": 0.16,
    "bathroom": 0.09,
    "dining": 0.09,
    "office": 0.1,
    "class": 0.04,
    "gym": 0.03,
}
BESIDE = {
    "living": ("kitchen", "dining", "bedroom", "office"),
    "kitchen": ("dining", "living"),
    "dining": ("living", "kitchen"),
    "bedroom": ("bathroom", "bedroom", "office"),
    "office": ("office", "living", "gym"),
    "bathroom": ("bedroom",),
    "class": ("office",),
    "gym": ("living", "office"),
}
RECIPES = {"living": living, "bedroom": bedroom, "kitchen": kitchen, "bathroom": bathroom, "dining": dining,
           "office": office, "class": class_room, "gym": gym}  # fmt: skip


@dataclass
class Home:
    """Items and lights; per room its rectangle and kind; what stands on the floor; points worth looking at."""

    rooms: list[Room]
    items: list[Item]
    lights: list[Light]
    footprints: list[Footprint]
    anchors: list[tuple[float, float, float]]


def build_home(rng: np.random.Generator, catalogue: Catalogue, models: Models) -> Home:
    """Rooms, shell, furniture and light; the same for the same generator state and catalogue."""
    b = Builder(rng, catalogue, models)
    share = np.array(list(KINDS.values()))
    first = list(KINDS)[int(rng.choice(len(KINDS), p=share / share.sum()))]
    kinds = [first]
    if b.chance(0.5):
        near = BESIDE[first]
        kinds.append(near[int(rng.integers(len(near)))])
        rng.shuffle(kinds)
    shell.rooms_of(b, kinds)
    day = 0.0 if b.chance(0.25) else b.uniform(0.3, 1.6)
    for number, room in enumerate(b.rooms):
        outer = [k for k in range(4) if not any(g.kind == "way" for g in room.walls[k].gaps)]
        shell.openings(b, room, outer)
        shell.surfaces(b, room)
        shell.doors(b, room)
        windows.windows(b, room, number, day)
        windows.ceiling_lights(b, room, number, day)
        RECIPES[room.kind](b, room, number, day)
        clutter(b, room, number, day)
    return Home(b.rooms, b.items, b.lights, b.footprints, b.anchors)
