"""`edgemtl data check`: what is found in good and bad folders."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
from typer.testing import CliRunner

from edgemtl.cli.data import app
from edgemtl.data.check import check
from edgemtl.data.layout import find_layout
from edgemtl.data.rooms.write import RoomSet, generate
from edgemtl.errors import DataError

RUN = CliRunner()


@pytest.fixture
def rooms(tmp_path: Path) -> Path:
    generate(RoomSet(seed=6, count=8, height=16, width=32, val_share=0.5), tmp_path / "rooms")
    return tmp_path / "rooms"


def test_a_good_set(rooms: Path) -> None:
    seen: list[tuple[int, int]] = []
    report = check(rooms, find_layout(rooms), ("train", "val"), lambda done, of: seen.append((done, of)))
    assert report.problems == []
    assert report.unusable() == []
    assert {split: {name: c.good for name, c in found.items()} for split, found in report.counts.items()} == {
        split: dict.fromkeys(("image", "semseg", "depth", "normals", "edge"), 4) for split in ("train", "val")
    }
    assert report.counts["train"]["depth"].labelled == pytest.approx(1)
    assert seen == [(i, 4) for i in (1, 2, 3, 4)] * 2
    done = RUN.invoke(app, ["check", str(rooms)])
    assert done.exit_code == 0, done.output
    assert "NYUD_MT" in done.output


def test_an_image_that_exif_would_turn_is_named_and_read_as_it_is_stored(rooms: Path) -> None:
    ids = (rooms / "gt_sets/train.txt").read_text().split()
    layout, exif = find_layout(rooms), PIL.Image.Exif()
    exif[0x112] = 6
    path = rooms / f"images/{ids[1]}.jpg"
    with PIL.Image.open(path) as picture:
        picture.save(path, exif=exif)
    with PIL.Image.open(path) as picture:
        stored = np.asarray(picture)  # as the published loaders read it
    assert np.abs(layout.read_image(path).astype(int) - stored).max() <= 2
    report = check(rooms, layout, ("train",))
    assert report.counts["train"]["image"].good == 4
    assert len(report.problems) == 1
    assert f"{ids[1]}.jpg has an EXIF orientation that turns it in other programs" in report.problems[0]


def test_every_problem_is_named_and_counted(rooms: Path) -> None:
    ids = (rooms / "gt_sets/train.txt").read_text().split()
    (rooms / f"depth/{ids[0]}.npy").unlink()
    np.save(rooms / f"depth/{ids[1]}.npy", np.full((16, 32), np.nan, np.float32))
    cv2.imwrite(str(rooms / f"segmentation/{ids[2]}.png"), np.zeros((16, 32), np.uint8))
    np.save(rooms / f"edge/{ids[3]}.npy", np.zeros((8, 32), np.uint8))
    report = check(rooms, find_layout(rooms), ("train",))
    counts = report.counts["train"]
    assert [(c.good, c.lost, c.bad, c.empty) for c in counts.values()] == [
        (4, 0, 0, 0),
        (4, 0, 0, 1),
        (2, 1, 1, 0),
        (4, 0, 0, 0),
        (3, 0, 1, 0),
    ]
    assert counts["semseg"].labelled == pytest.approx(0.75)
    text = "\n".join(report.problems)
    assert f"depth/{ids[1]}.npy holds 512 values that are not finite" in text
    assert f"edge/{ids[3]}.npy is (8, 32) but its image is (16, 32)" in text
    assert "train: 1 of 4 files of depth are missing" in text
    assert report.unusable() == ["train: 1 files of depth are malformed", "train: 1 files of edge are malformed"]
    done = RUN.invoke(app, ["check", str(rooms), "--show", "1"])
    assert isinstance(done.exception, DataError)
    assert "... and 2 more; --show 3 lists them" in done.output
    assert "segmentation/ID.png: 8-bit grey" in done.output  # what the layout should be


def test_partly_labelled_sets_are_usable(rooms: Path) -> None:
    for path in (rooms / "normals").iterdir():
        path.unlink()
    report = check(rooms, find_layout(rooms), ("train", "val"))
    assert report.unusable() == []
    assert any("no file of normals" in problem for problem in report.problems)
    for path in (rooms / "images").iterdir():
        path.unlink()
    reasons = check(rooms, find_layout(rooms), ("train",)).unusable()
    assert reasons == ["train: 4 images are missing"]


def test_a_missing_list_is_a_problem_and_no_list_an_error(rooms: Path) -> None:
    (rooms / "gt_sets/val.txt").unlink()
    done = RUN.invoke(app, ["check", str(rooms)])
    assert done.exit_code == 0
    assert "val.txt cannot be read" in done.output
    (rooms / "gt_sets/train.txt").write_text("")
    done = RUN.invoke(app, ["check", str(rooms)])
    assert isinstance(done.exception, DataError)
    assert "no split can be read" in str(done.exception)


def test_without_a_folder_the_layouts_are_told() -> None:
    done = RUN.invoke(app, ["check"])
    assert done.exit_code == 0
    for name in ("NYUD_MT", "PASCAL_MT", "Cityscapes", "human_parts/ID.mat"):
        assert name in done.output
