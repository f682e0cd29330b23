"""A second set among the first: which images come, how many, and in what order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fake_rooms import FakeRooms
from rich.console import Console
from torch import Tensor

import edgemtl.train.data
from edgemtl.cli import train as cli
from edgemtl.train.config import TrainConfig
from edgemtl.train.mixed import Mixed


class _Numbered(FakeRooms):
    """Every image is its own number, from `start`."""

    def __init__(self, images: int, start: int) -> None:
        super().__init__(images)
        self.start = start

    def _sample(self, index: int) -> dict[str, Tensor]:
        return {"image": torch.tensor([self.start + index + self.epoch / 1000])}

    def preload(self) -> None:
        pass

    def plain(self) -> _Numbered:
        return self

    def reports(self) -> list[str]:
        return []


def _epoch(mixed: Mixed, epoch: int) -> list[float]:
    mixed.set_epoch(epoch)
    return [float(x) for x in mixed.batch(range(len(mixed)))["image"]]


def test_an_epoch_is_the_first_set_and_some_of_the_second() -> None:
    mixed = Mixed(_Numbered(30, 0), _Numbered(500, 1000), 0.25, 7)
    assert len(mixed) == 40
    one, two = _epoch(mixed, 1), _epoch(mixed, 2)
    assert one[:30] == pytest.approx([i + 0.001 for i in range(30)])  # both sets augment by the epoch
    drawn = {round(x) for x in one[30:]}
    assert len(drawn) == 10
    assert drawn <= set(range(1000, 1500))
    assert drawn != {round(x) for x in two[30:]}
    assert _epoch(mixed, 1) == one  # pure: a resumed run draws alike
    assert _epoch(Mixed(_Numbered(30, 0), _Numbered(500, 1000), 0.25, 8), 1)[30:] != one[30:]


def test_a_batch_keeps_its_order() -> None:
    mixed = Mixed(_Numbered(3, 0), _Numbered(6, 1000), 0.5, 0)
    whole = mixed.batch(range(6))["image"]
    for order in ([5, 0, 4, 1], [3], [2, 0], [4, 5, 3], [0, 3, 1, 4, 2, 5]):
        assert torch.equal(mixed.batch(order)["image"], whole[order])


def test_a_small_second_set_comes_whole_and_once() -> None:
    mixed = Mixed(_Numbered(30, 0), _Numbered(4, 1000), 0.5, 0)
    assert sorted(round(x) for x in _epoch(mixed, 3)[30:]) == [1000, 1001, 1002, 1003]


def test_the_recipe_names_the_second_set(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    def open_data(root: Path, split: str, config: Any, **options: Any) -> _Numbered:
        opened.append((str(root), split, options.get("photo")))
        return _Numbered(30, 0) if str(root) == "photos" else _Numbered(500, 1000)

    monkeypatch.setattr(edgemtl.train.data, "open_data", open_data)
    recipe: dict[str, Any] = {
        "preset": "micro",
        "stages": [{"name": "open", "steps": 1}],
        "val_images": 0,
        "photo": 0.5,
    }
    plain = cli._sets(TrainConfig(**recipe), Path("photos"), Console(quiet=True))
    assert plain.train is plain.plain
    opened.clear()
    sets = cli._sets(TrainConfig(**recipe, mix={"data": "homes", "share": 0.4}), Path("photos"), Console(quiet=True))
    assert opened == [("photos", "train", 0.5), ("homes", "train", 0.5)]
    assert (len(sets.train), len(sets.plain)) == (50, 30)
