"""Reads every file of a labelled folder once and says what is missing, malformed or odd: `edgemtl data check`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgemtl import tasks
from edgemtl.data import seams
from edgemtl.data.form import Layout
from edgemtl.errors import DataError
from edgemtl.media import images


@dataclass
class Count:
    """Files of one kind in one split: `lost` ones do not exist, `bad` ones cannot be used.

    `labelled` is the share of the good ones' pixels that have a label; `empty` good ones have none at all.
    """

    good: int = 0
    lost: int = 0
    bad: int = 0
    empty: int = 0
    labelled: float = 0.0
    collected: int = 0  # pixels of the class that may have collected NYU's seams, and those of them in seams
    seams: int = 0


@dataclass
class Report:
    """What was found: {split: {"image" or task: Count}}, and one sentence per problem, in the order of the files."""

    layout: Layout
    counts: dict[str, dict[str, Count]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def bad(self) -> int:
        return sum(c.bad for split in self.counts.values() for c in split.values())

    def unusable(self) -> list[str]:
        """Reasons why training on this folder would stop or make no sense."""
        if not self.counts:
            return ["no split can be read"]
        out = []
        for split, found in self.counts.items():
            if found["image"].lost:
                out.append(f"{split}: {found['image'].lost} images are missing")
            out += [f"{split}: {c.bad} files of {name} are malformed" for name, c in found.items() if c.bad]
        tasks = [name for name in self.layout.labels if any(c[name].good for c in self.counts.values())]
        if not tasks:
            out.append("no task has a label")
        return out


def check(
    root: Path, layout: Layout, splits: tuple[str, ...], progress: Callable[[int, int], None] | None = None
) -> Report:
    """Read the images and labels of `splits`. Problems are collected, not raised; a split without a list is one."""
    report = Report(layout)
    for split in splits:
        try:
            whole, ids = layout.part(root, split)
        except DataError as error:
            report.problems.append(str(error))
            continue
        at = len(report.problems)
        counts = report.counts[split] = {name: Count() for name in ("image", *layout.labels)}
        for done, image_id in enumerate(ids, 1):
            _image(report, counts, root, whole, image_id)
            if progress:
                progress(done, len(ids))
        for name, count in counts.items():
            count.labelled /= max(1, count.good)
            if count.lost and count.good:
                report.problems.append(f"{split}: {count.lost} of {len(ids)} files of {name} are missing")
            elif count.lost:
                where = layout.path(root, whole, name, ids[0])
                report.problems.append(f"{split}: no file of {name}, for example {where}; the task cannot be used")
            if count.seams > seams.LIMIT * count.collected and whole == "train" and not seams.generated(root):
                share = f"{100 * count.seams / count.collected:.0f} % of class {seams.OTHER}"
                odd = f"{split}: {share} are seams a few pixels wide between objects"
                report.problems.insert(at, f"{odd}; `edgemtl data seams {root} OUT` writes a copy without them")
    return report


def _image(report: Report, counts: dict[str, Count], root: Path, split: str, image_id: str) -> None:
    shape: tuple[int, ...] | None = None
    try:
        report.layout.fov(root, split, image_id)
    except DataError as error:
        counts["image"].bad += 1
        report.problems.append(str(error))
    for name, count in counts.items():
        path = report.layout.path(root, split, name, image_id)
        if not path.is_file():
            count.lost += 1
            continue
        try:
            array = report.layout.read_image(path) if name == "image" else report.layout.read(root, name, path)
            if shape is not None and array.shape[:2] != shape:
                raise DataError(f"{path} is {array.shape[:2]} but its image is {shape}; they must have one size")
        except DataError as error:
            count.bad += 1
            report.problems.append(str(error))
            continue
        count.good += 1
        if name == "image":
            shape = array.shape[:2]
            if images.exif_turns(path, path.read_bytes()):
                stored = "here it is read as it is stored, like its labels"
                report.problems.append(f"{path} has an EXIF orientation that turns it in other programs; {stored}")
        else:
            mask = array != tasks.find(report.layout.labels[name].kind).none
            share = float(np.mean(mask.any(-1) if mask.ndim == 3 else mask))
            count.labelled += share
            count.empty += share == 0
        if report.layout.name == seams.LAYOUT and name == seams.TASK:
            collected = array == seams.OTHER
            count.collected += int(collected.sum())
            count.seams += int(seams.seam(collected).sum())
