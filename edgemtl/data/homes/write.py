"""Writes a set of homes in the NYUD_MT folder layout; stopping and going on as `rooms.write` describes.

OUT/homes.json               what was asked for, and from which furniture
OUT/credits.json             author and licence of every model that is in a picture
OUT/images/ID.jpg            RGB
OUT/segmentation/ID.png      uint8, 0 = no label, class c of NYU's forty stored as c + 1
OUT/depth/ID.npy             float16 [H, W], metres along the optical axis
OUT/normals/ID.npy           float16 [H, W, 3], unit, x right, y up, z towards the camera
OUT/edge/ID.npy              uint8 [H, W], 0 or 1
OUT/views/ID.json            field of view, kind of room, renderer, boxes of the instances, models in sight
OUT/gt_sets/{train,val}.txt  one ID per line; the split is by home, so no home is in both
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from edgemtl.data.homes.catalogue import fingerprint, load_catalogues
from edgemtl.data.homes.classes import CLASSES
from edgemtl.data.homes.home import Home, build_home
from edgemtl.data.homes.model import Models
from edgemtl.data.homes.render import View, render
from edgemtl.data.homes.trace import World
from edgemtl.data.homes.view import Eye, choose, fallback
from edgemtl.data.rooms.image_set import ImageSet
from edgemtl.data.rooms.write import FILES, encode, npy
from edgemtl.errors import ConfigError

GENERATOR = 1  # raise when the same seed gives other bytes
VIEWS_PER_HOME = 8


@dataclass(frozen=True)
class HomeSet(ImageSet):
    """What to render: views of homes furnished from `furniture`, paths of .sh3f files.

    A `cycles_share` of the homes is photographed by Blender's Cycles instead of the ray cast.
    """

    furniture: tuple[str, ...] = ()
    cycles_share: float = 0.0

    note = "homes.json"
    word = "homes"
    group = VIEWS_PER_HOME
    classes = CLASSES
    files = {**FILES, "views": ".json"}  # noqa: RUF012

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.cycles_share <= 1:
            raise ConfigError(f"the cycles share is {self.cycles_share}; give a number from 0 to 1, for example 0.1")
        if not self.furniture:
            raise ConfigError("a set of homes needs furniture; give at least one .sh3f file")

    def renderer_of(self, home: int) -> str:
        """ "cycles" for every k-th home with k = 1 / cycles_share, else "rays"."""
        steps = [int((home + k) * self.cycles_share + 0.5) for k in (0, 1)]
        return "cycles" if steps[0] != steps[1] else "rays"

    def describe(self) -> dict[str, object]:
        """The content of homes.json."""
        furniture = [{"file": Path(name).name, "sha256": fingerprint(name)} for name in self.furniture]
        return {
            "generator": GENERATOR,
            "seed": self.seed,
            "count": self.count,
            "height": self.height,
            "width": self.width,
            "val_share": self.val_share,
            "cycles_share": self.cycles_share,
            "furniture": furniture,
            "views_per_home": VIEWS_PER_HOME,
            "classes": list(CLASSES),
        }

    def ready(self) -> None:
        """Raises DataError for bad furniture, ConfigError where Blender is asked for and missing."""
        load_catalogues(self.furniture)
        if self.cycles_share:
            from edgemtl.data.rooms.cycles import blender

            blender()

    def encode(self, image: int) -> dict[str, bytes]:
        """Render an image; its six files as bytes, by folder."""
        view, note = make_view(self, image)
        files = encode(view)
        # half floats resolve 2 mm at 4 m, better than any sensor
        files["depth"] = npy(view.depth.astype(np.float16))
        files["views"] = (json.dumps(note) + "\n").encode()
        return files

    def left_out(self) -> dict[str, str]:
        """Models that this process could not read, and why."""
        return dict(_models().skipped)

    def finish(self, out: Path, ids: list[str]) -> None:
        """Write credits.json for the images that are whole."""
        from edgemtl.data.homes.credits import write_credits

        write_credits(self.furniture, out, ids)


@lru_cache(maxsize=1)
def _models() -> Models:
    return Models()


@lru_cache(maxsize=1)
def home(furniture: tuple[str, ...], seed: int, number: int) -> tuple[Home, World]:
    """A home of a set and its search tree; the last one is kept because its views come one after the other."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, 2, number]))
    made = build_home(rng, load_catalogues(furniture), _models())
    return made, World(made.items)


def make_view(job: HomeSet, image: int) -> tuple[View, dict[str, object]]:
    """Render one image of a set, independent of all others; and what goes to views/ID.json."""
    number = image // VIEWS_PER_HOME
    made, world = home(job.furniture, job.seed, number)
    rng = np.random.default_rng(np.random.SeedSequence([job.seed, 3, image]))
    first = int(rng.integers(len(made.rooms)))
    camera: Eye | None = None
    for k in range(len(made.rooms)):
        camera = camera or choose(made, world, (first + k) % len(made.rooms), rng)
    camera = camera or fallback(made, world)
    view = render(world, made.lights, camera, (job.height, job.width), rng)
    renderer = job.renderer_of(number)
    if renderer == "cycles":
        from edgemtl.data.homes.cycles import picture

        view = replace(view, rgb=picture(made, camera, (job.height, job.width), rng))
    across = 2 * np.degrees(np.arctan(np.tan(np.radians(camera.fov) / 2) * job.width / max(job.height, job.width)))
    models = sorted({made.items[i].model for i in view.items} - {""})
    note = {
        "fov": round(float(across), 4),
        "room": made.rooms[camera.room].kind,
        "renderer": renderer,
        "home": number,
        "eye_height": round(camera.eye[2], 3),
        "boxes": view.boxes,
        "models": models,
    }
    return view, note
