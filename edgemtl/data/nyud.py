"""The NYUD_MT folder layout: the rooms that `edgemtl data rooms` writes, or the real NYUD-v2 package.

Labels follow the multi-task protocol of Vandenhende et al. (https://arxiv.org/abs/2004.13379), which M3ViT uses.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from edgemtl import tasks
from edgemtl.data.files import (
    Array,
    class_labels,
    read_fov,
    read_grey,
    read_image,
    read_npy,
)
from edgemtl.data.form import About, Label, Layout, read_list
from edgemtl.errors import DataError

CLASSES = 40
# Horizontal degrees of the published crop, 560 of the colour camera's 640 columns at a focal length of 518.86 pixels.
FOV = 2 * math.degrees(math.atan(280 / 518.86))

_FOLDERS = {  # and how the files end: in the package of the multi-task protocol, and in that of ATRC and InvPT
    "image": ("images", ".jpg", ".png"),
    "semseg": ("segmentation", ".png"),
    "depth": ("depth", ".npy"),
    "normals": ("normals", ".npy", ".png"),
    "edge": ("edge", ".npy", ".png"),
}


class Nyud(Layout):
    name = "nyud"
    title = "NYUD_MT (NYUD-v2, or rooms)"
    lists = "gt_sets/{train,val}.txt: one image ID a line"
    image = "images/ID.jpg or .png: RGB"
    labels = {  # noqa: RUF012
        "semseg": Label("semseg", "segmentation/ID.png: 8-bit grey, 0 = no label, class c as c + 1", CLASSES),
        "depth": Label("depth", "depth/ID.npy: numbers [H, W], metres, 0 = no label"),
        "normals": Label(
            "normals", "normals/ID.npy: numbers [H, W, 3], unit, zero = no label; or ID.png: RGB of (v + 1) * 127.5"
        ),
        "edge": Label("edge", "edge/ID.npy: numbers [H, W], 0 or 1; or ID.png: 8-bit grey, 0 or 255"),
    }

    def matches(self, root: Path) -> bool:
        return (root / "gt_sets").is_dir()

    def ids(self, root: Path, split: str) -> list[str]:
        what = f"a folder in the NYUD_MT layout has gt_sets/{split}.txt with an image ID a line: restore it, or make "
        return read_list(root / "gt_sets" / f"{split}.txt", what + "rooms with `edgemtl data rooms`")

    def path(self, root: Path, split: str, name: str, image_id: str) -> Path:
        folder, *ends = _FOLDERS[name]
        places = [root / folder / (image_id + end) for end in ends]
        return next((place for place in places[1:] if not places[0].exists() and place.exists()), places[0])

    def read_image(self, path: Path) -> Array:
        return read_image(path)

    def read(self, root: Path, task: str, path: Path) -> Array:
        if task == "semseg":
            form = "an 8-bit single-channel PNG (0 = no label, class c stored as c + 1)"
            return class_labels(path, read_grey(path, form), self.classes(root, task), 1, 0)
        return tasks.find(self.labels[task].kind).read(path, _array(task, path))

    def fov(self, root: Path, split: str, image_id: str) -> float | None:
        """From views/ID.json, which rendered sets have; the real photographs' one camera; None for rooms without."""
        note = root / "views" / f"{image_id}.json"
        if note.exists():
            return read_fov(note)
        return None if _note(root) else FOV

    def classes(self, root: Path, task: str) -> int:
        """Those of a generated set, or NYUD's 40."""
        found = _note(root)
        return CLASSES if found is None else len(found[1]["classes"])

    def about(self, root: Path) -> About:
        """Generated sets by the "title" in their note, or their kind; else the real photographs."""
        found = _note(root)
        if found is None:
            official = {"train": (795, "official training images"), "val": (654, "official test images")}
            title = "NYU Depth V2, seams mended" if (root / "seams.json").exists() else "NYU Depth V2"
            return About(title, "425x560 of 480x640", official)
        kind, note = found
        return About(str(note.get("title", f"synthetic {kind}"))[:80])


def _array(task: str, path: Path) -> Array:
    """A label of numbers, from either package's file."""
    if path.suffix != ".png":
        return read_npy(path)
    if task == "edge":
        return read_grey(path, "an 8-bit single-channel PNG, 255 on edges and 0 elsewhere").astype(np.float32) / 255
    shown = read_image(path)
    vectors = shown.astype(np.float32) * np.float32(2 / 255) - 1
    return np.where(shown.any(-1, keepdims=True), vectors, 0)  # black is no direction, but no label


def _note(root: Path) -> tuple[str, dict[str, Any]] | None:
    """What a generated set says of itself: its kind, and rooms.json or homes.json with a list of 1 to 254 "classes"."""
    note = next((n for kind in ("rooms", "homes") if (n := root / f"{kind}.json").exists()), None)
    if note is None:
        return None
    try:
        found = json.loads(note.read_text())
        if not (isinstance(found["classes"], list) and 0 < len(found["classes"]) < 255):
            raise ValueError("'classes' is not a list of names")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{note} cannot be read ({error}); make the {note.stem} again") from error
    return note.stem, dict(found)
