"""What a labelled data set's folders look like: one `Layout` per published form.

A label in memory has one form per kind (`edgemtl.tasks`: `stored` and `vector`), small enough that a whole split fits.
The kind's `none` marks pixels without a label. A label whose file is missing is all `none`.

A split may be divided by name: "train:hold" is every tenth of its images, "train:fit" the others, so that a training
can be watched and chosen without looking at the split that is reported.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgemtl.data.files import Array
from edgemtl.errors import DataError

HOLD = 10  # every how-many-th image of a split is held out
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Label:
    """How the labels of one task are stored: kind, the files' form in words, how many classes if it has some, and how
    they differ from what the kind expects, by a name that it knows ("inverse", "y_down"; "": not at all).
    """

    kind: str
    form: str
    classes: int = 0
    variant: str = ""


@dataclass(frozen=True)
class Augmentation:
    """What training does to the geometry, as published: a zoom from `zooms`, or between two when `between`, a rotation
    up to `degrees` either way; every second picture is mirrored.
    """

    zooms: tuple[float, ...] = (1.0, 1.2, 1.5)
    between: bool = False
    degrees: float = 0.0


@dataclass(frozen=True)
class About:
    """What a figure says of the set that it was taken on: its title, how the pictures were cropped ("" if they were
    not), and of each split how many images the published set has and what it calls them.
    """

    title: str
    crop: str = ""
    official: Mapping[str, tuple[int, str]] = field(default_factory=dict)


class Layout(ABC):
    """One published folder form. Methods raise DataError, which names the file and the form it should have."""

    name: str
    title: str
    lists: str  # which files name the images of a split, in words
    image: str
    labels: Mapping[str, Label]
    aliases: Mapping[str, str] = {}  # names that others give to the same tasks
    augmentation = Augmentation()
    max_dist = 0.011  # of odsF: how far a boundary may be off, as a share of the diagonal

    @abstractmethod
    def matches(self, root: Path) -> bool:
        """Whether a folder looks like this."""

    @abstractmethod
    def ids(self, root: Path, split: str) -> list[str]:
        """The images of a split, in order."""

    @abstractmethod
    def path(self, root: Path, split: str, name: str, image_id: str) -> Path:
        """The file of one image: `name` is "image" or a task of `labels`."""

    @abstractmethod
    def read_image(self, path: Path) -> Array:
        """RGB, uint8 [H, W, 3]."""

    @abstractmethod
    def read(self, root: Path, task: str, path: Path) -> Array:
        """A label in the form it has in memory."""

    def fov(self, root: Path, split: str, image_id: str) -> float | None:
        """The horizontal field of view of one image in degrees; None where it is not known."""
        return None

    def part(self, root: Path, split: str) -> tuple[str, list[str]]:
        """The published split that `split` lies in, and the images of `split`, which may be a part such as train:hold.

        Raises DataError for an unknown part and for one without images, beside what `ids` raises.
        """
        whole, colon, part = split.partition(":")
        ids = self.ids(root, whole)
        if not colon:
            return whole, ids
        if part not in ("fit", "hold"):
            raise DataError(f"there is no split {split!r}; give {whole}, {whole}:fit or {whole}:hold")
        kept = [name for i, name in enumerate(ids) if (i % HOLD == HOLD - 1) == (part == "hold")]
        if not kept:
            raise DataError(f"{root} has {len(ids)} {whole} images; {split} takes every tenth, so give {HOLD} or more")
        return whole, kept

    def classes(self, root: Path, task: str) -> int:
        """How many classes a task has, if its kind has some."""
        return self.labels[task].classes

    def about(self, root: Path) -> About:
        """Which set the folder holds."""
        return About(self.title)

    def describe(self) -> str:
        """The folders and files, one line each."""
        lines = [f"  {self.lists}", f"  {self.image}", *(f"  {label.form}" for label in self.labels.values())]
        return "\n".join([f"{self.title}:", *lines])


def read_list(path: Path, what: str) -> list[str]:
    """The image IDs in a text file, one a line, with or without a byte order mark.

    Raises DataError for a file that is missing, empty or names no IDs.
    """
    try:
        data = path.read_bytes()
        ids = data.decode("utf-16" if data.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig").split()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}); {what}") from error
    if not ids:
        raise DataError(f"{path} names no images; {what}")
    bad = next((name for name in ids if not _NAME.fullmatch(name)), None)
    if bad is not None:
        raise DataError(f"{path} names {bad!r}, which is no image ID; IDs are letters, digits, '_', '-' and '.'")
    return ids
