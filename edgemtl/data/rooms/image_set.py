"""What every set of rendered images says of itself, whether of rooms or of homes; `write` turns one into a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from edgemtl.errors import ConfigError

MIN_SIDE, MAX_SIDE = 16, 2048


@dataclass(frozen=True)
class ImageSet:
    """What any set says of itself: `count` views of `height` x `width` pixels from a seed, `group` views to a place.

    A kind of set is a subclass with its own note (the file that says what was asked for), files, and `encode`.
    """

    seed: int
    count: int
    height: int = 128
    width: int = 256
    val_share: float = 0.1

    note: ClassVar[str]
    word: ClassVar[str]  # what a set consists of, for messages
    group: ClassVar[int]
    classes: ClassVar[tuple[str, ...]]
    files: ClassVar[dict[str, str]]

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(f"the number of images is {self.count}; give at least 1, for example --count 100")
        if self.seed < 0:
            raise ConfigError(f"the seed is {self.seed}; give a whole number from 0 up, for example --seed 0")
        if not all(MIN_SIDE <= side <= MAX_SIDE for side in (self.height, self.width)):
            raise ConfigError(
                f"the size is {self.height}x{self.width}; each side must be {MIN_SIDE} to {MAX_SIDE} pixels, "
                "for example --size 128x256"
            )
        if not 0 <= self.val_share <= 1:
            raise ConfigError(f"the val share is {self.val_share}; give a number from 0 to 1, for example 0.1")

    @property
    def rooms(self) -> int:
        return -(-self.count // self.group)

    def images_of(self, room: int) -> range:
        return range(room * self.group, min(self.count, (room + 1) * self.group))

    def split_of(self, image: int) -> str:
        """ "val" for every k-th room with k = 1 / val_share, else "train"."""
        room = image // self.group
        steps = [int((room + k) * self.val_share + 0.5) for k in (0, 1)]
        return "val" if steps[0] != steps[1] else "train"

    def describe(self) -> dict[str, object]:
        """The note's content; a set with other values is another set."""
        raise NotImplementedError

    def encode(self, image: int) -> dict[str, bytes]:
        """Render an image; its files as bytes, by folder."""
        raise NotImplementedError

    def ready(self) -> None:
        """Raise an error where something that rendering needs is missing; called before folders are made."""

    def left_out(self) -> dict[str, str]:
        """What this process could not use so far, and why."""
        return {}

    def finish(self, out: Path, ids: list[str]) -> None:
        """Called with the images that are whole, each time a run ends."""
