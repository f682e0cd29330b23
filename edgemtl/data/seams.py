"""Mends the labels of NYU Depth V2: the seams between its objects, which nobody labelled.

NYU's annotators left a line without a label, a few pixels wide, between most objects. Where a copy of the set leaves it
without a label, no border lies between the objects. Where a copy gives it to a class, that class is drawn around
everything, and every border is found twice. One copy may do both, by split. `mend` writes a copy in which a seam has no
label in any split and one border runs along its middle. Only segmentation/ and edge/ differ.

A seam is the part of one class, or of the pixels without a label, that an opening by a square removes. The square's
side is in proportion to the width of the image, 5 pixels at 320. It is 3 or more, else at most the shorter side.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from edgemtl.data.files import Array
from edgemtl.data.layout import find_layout
from edgemtl.data.nyud import CLASSES, Nyud
from edgemtl.data.rooms.write import disk_error, write_atomic
from edgemtl.errors import ConfigError, DataError

METHOD = 1  # raise when the same labels give other bytes
NOTE = "seams.json"
LAYOUT, TASK = "nyud", "semseg"  # whose labels may have seams
OTHER = 40  # NYU's "otherprop", the class that has what nobody labelled in some copies' training split
LIMIT = 0.1  # more of a class in seams is odd: in one such copy 16 % of class 40, at most 6 % of any other
_OWN = ("segmentation", "edge", "gt_sets")  # what a copy does not share with the set


class Shares(NamedTuple):
    """Means over the images of a split: pixels that are edges, that have no label, and of class 40. NaN: not known."""

    edge: float
    none: float
    other: float


class Mended(NamedTuple):
    """One split: how many images it has, how many of them have labels, what these were and what they are now."""

    images: int
    mended: int
    before: Shares
    after: Shares


def generated(root: Path) -> str | None:
    """The note of a set that a generator wrote, whose labels are exact; None for photographs."""
    return next((name for name in ("rooms.json", "homes.json") if (root / name).exists()), None)


def seam(mask: Array) -> Array:
    """The parts of a mask [H, W] that are thinner than the square; the rest keeps its rounded corners."""
    height, width = mask.shape
    radius = max(1, min(round(width * 2 / 320), (min(height, width) - 1) // 2))
    around = max(1, min(round(width / 320), radius))
    square, small = (np.ones((2 * r + 1, 2 * r + 1), np.uint8) for r in (radius, around))
    whole = mask.astype(np.uint8)
    core = cv2.morphologyEx(whole, cv2.MORPH_OPEN, square, borderType=cv2.BORDER_REPLICATE)
    return mask & (cv2.dilate(core, small) == 0)


def mend_labels(labels: Array, voids: int) -> tuple[Array, Array]:
    """Labels [H, W], 0 = none, without the seams of class `voids`; and their borders, uint8 [H, W].

    For the borders alone a seam takes the nearest label, and what has no label elsewhere counts as one more class.
    """
    hole = seam(labels == voids)
    whole = _fill(np.where(labels == 0, CLASSES + 1, labels).astype(np.uint8), hole)
    edge = np.zeros(labels.shape, np.uint8)
    edge[:, :-1] |= whole[:, :-1] != whole[:, 1:]
    edge[:-1] |= whole[:-1] != whole[1:]
    return np.where(hole, 0, labels).astype(np.uint8), edge


def _fill(labels: Array, hole: Array) -> Array:
    if hole.all():
        return labels
    _, near = cv2.distanceTransformWithLabels(hole.astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    table = np.zeros(int(near.max()) + 1, labels.dtype)
    table[near[~hole]] = labels[~hole]
    return np.where(hole, table[near], labels)


def mend(
    source: Path,
    out: Path,
    voids_train: int = OTHER,
    voids_other: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Mended]:
    """Write a mended copy of the set `source` to `out`; a stopped run is continued. Returns what each split became.

    `voids_train` is the class that holds the seams in the split train, `voids_other` in all others, 0 for no label; an
    image of several splits counts as train's. Labels that no list names are left out. Raises DataError for a set that
    is generated or mended already, for labels that cannot be read, and for an `out` that holds something else.
    """
    if not all(0 <= number <= CLASSES for number in (voids_train, voids_other)):
        raise ConfigError(f"the voids are in {voids_train} and {voids_other}; give a class from 1 to {CLASSES}, or 0")
    layout = find_layout(source, Nyud.name)
    if note := generated(source) or (NOTE if (source / NOTE).exists() else None):
        what = "mended already" if note == NOTE else "generated, so its labels have no seams"
        raise DataError(f"{source} is {what} ({note}); give a copy of NYU Depth V2 as it was published")
    names = {path.stem for path in (source / "gt_sets").glob("[!.]*.txt")} or {"train"}  # which `ids` calls missing
    splits = {name: layout.ids(source, name) for name in sorted(names, key=lambda name: (name != "train", name))}
    voids = {i: voids_train if name == "train" else voids_other for name in reversed(splits) for i in splits[name]}
    paths = {image_id: layout.path(source, "", TASK, image_id) for image_id in voids}
    todo = sorted(image_id for image_id, path in paths.items() if path.is_file())
    if not todo:
        raise DataError(f"{source} has no labels to mend; {layout.labels[TASK].form}, so restore them")
    digest = hashlib.sha256(json.dumps(splits).encode())
    for image_id in todo:  # all are read before anything is written
        labels = layout.read(source, TASK, paths[image_id])
        digest.update(f"{image_id} {labels.shape}".encode() + labels.tobytes())
    _prepare(source, out, {"method": METHOD, "train": voids_train, "other": voids_other, "labels": digest.hexdigest()})
    shares = {}
    for count, image_id in enumerate(todo, 1):
        labels, path = layout.read(source, TASK, paths[image_id]), layout.path(source, "", "edge", image_id)
        old = layout.read(source, "edge", path) if path.is_file() else np.full(labels.shape, np.nan)
        if old.shape != labels.shape:
            raise DataError(f"{path} is {old.shape} but its labels are {labels.shape}; restore the one that is wrong")
        fixed, edge = mend_labels(labels, voids[image_id])
        np.save(stored := io.BytesIO(), edge)
        for task, data in ((TASK, cv2.imencode(".png", fixed)[1].tobytes()), ("edge", stored.getvalue())):
            if not (place := layout.path(out, "", task, image_id)).exists():
                write_atomic(place, data)
        shares[image_id] = [x.mean() for x in (old, labels == 0, labels == OTHER, edge, fixed == 0, fixed == OTHER)]
        if progress:
            progress(count, len(todo))
    _copy(source / "gt_sets", out / "gt_sets")  # last: without the lists a copy is no set, so an unfinished one is none
    return {name: _summary(ids, shares) for name, ids in splits.items()}


def _summary(ids: list[str], shares: dict[str, list[float]]) -> Mended:
    rows = [shares[image_id] for image_id in ids if image_id in shares]
    mean = np.mean(rows or [[np.nan] * 6], axis=0).tolist()
    return Mended(len(ids), len(rows), Shares(*mean[:3]), Shares(*mean[3:]))


def _prepare(source: Path, out: Path, wanted: dict[str, object]) -> None:
    """Make `out` with its note and with everything that is not mended, or check that it holds the same run."""
    whole, place = source.resolve(), out.resolve()
    if place == whole or whole in place.parents:
        raise DataError(f"{out} lies in {source}, which is not changed; give a folder outside of it")
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file; give a folder to write the copy to")
    note, text = out / NOTE, (json.dumps(wanted, indent=1) + "\n").encode()
    try:
        if note.is_file():
            same = note.read_bytes() == text and not any((out / name).is_symlink() for name in _OWN)
        else:
            same = not out.exists() or all(path.name.startswith(f".{NOTE}.") for path in out.iterdir())
        if not same:
            raise DataError(
                f"{out} holds something else than this copy; give a new folder, or the same set and options"
            )
        for name in _OWN:
            (out / name).mkdir(parents=True, exist_ok=True)
            for left in (out / name).glob(".*.tmp"):
                left.unlink()
        write_atomic(note, text)
        for entry in sorted(whole.iterdir()):
            if entry.name not in _OWN:
                _bring(entry, place / entry.name)
    except OSError as error:
        raise disk_error(out, error) from error


def _bring(entry: Path, place: Path) -> None:
    """Link to a file or folder, relatively if both sets lie side by side and so move together; else copy."""
    beside = entry.parent.parent == place.parent.parent
    if place.is_symlink():
        place.unlink()  # the set may have moved since
    if not place.exists():
        with suppress(OSError, NotImplementedError):  # a file system without links
            place.symlink_to(os.path.relpath(entry, place.parent) if beside else entry, entry.is_dir())
            return
    _copy(entry, place)


def _copy(entry: Path, place: Path) -> None:
    """Copy a file, or the files below a folder; those that are there are kept. Links to folders are not followed."""
    for path in sorted(entry.rglob("*")) if entry.is_dir() else [entry]:
        copy = place / path.relative_to(entry)
        try:
            if path.is_file() and not copy.exists():
                copy.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(copy, path.read_bytes())
        except OSError as error:
            raise disk_error(copy, error) from error
